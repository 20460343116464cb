// What the tests of this folder share.
#pragma once

#include <doctest/doctest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/base/rng.h"
#include "libcore/base/utf8.h"
#include "libcore/text/byte_map.h"
#include "tests/support/paths.h"

namespace ds::test {

using Json = nlohmann::ordered_json;

inline std::vector<Json> read_rows(const std::filesystem::path& path) {
  std::ifstream in(path);
  REQUIRE_MESSAGE(in.good(), path.string());
  std::vector<Json> rows;
  std::string line;
  while (std::getline(in, line)) rows.push_back(Json::parse(line));
  return rows;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE_MESSAGE(in.good(), path.string());
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// The message of the Error that `action` throws; empty when it throws none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline Json byte_level(bool prefix_space = false) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", prefix_space},
          {"trim_offsets", true},
          {"use_regex", false}};
}

// A small tokenizer.json: the 256 bytes, in the byte map's order of bytes, and a few merges.
inline Json small_tokenizer() {
  Json vocab = Json::object();
  std::int32_t id = 0;
  for (const std::uint16_t code_point : byte_code_points()) {
    std::string text;
    append_utf8(text, code_point);
    vocab[text] = id++;
  }
  Json merges = Json::array();
  for (const auto& [left, right] : std::vector<std::pair<std::string, std::string>>{
           {"a", "b"}, {"ab", "c"}, {"b", "c"}, {"Ġ", "a"}, {"a", "a"}}) {
    vocab[left + right] = id++;
    merges.push_back(left + " " + right);
  }
  return {{"version", "1.0"},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level()},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"byte_fallback", false},
            {"vocab", vocab},
            {"merges", merges}}}};
}

inline Json added_token(const std::string& text, std::int32_t id, bool special, bool normalized) {
  return {{"id", id},        {"content", text},    {"single_word", false},    {"lstrip", false},
          {"rstrip", false}, {"special", special}, {"normalized", normalized}};
}

// Small random numbers, the same in every run.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : rng_(seed, 77) {}
  std::uint64_t below(std::uint64_t limit) { return rng_.bits(counter_++) % limit; }

 private:
  Rng rng_;
  std::uint64_t counter_ = 0;
};

// Valid UTF-8 of every length and of all planes, with runs of white space, digits and letters.
inline std::string random_text(Dice& rng) {
  std::string text;
  const std::uint64_t pieces = rng.below(20);
  for (std::uint64_t i = 0; i < pieces; ++i) {
    constexpr std::array<std::uint32_t, 6> kLimits = {0x80,   0x800,   0x3100,
                                                      0xa000, 0x10000, 0x110000};
    const std::uint32_t limit = kLimits[rng.below(kLimits.size())];
    const std::uint64_t run = 1 + rng.below(6);
    const bool repeat = rng.below(4) == 0;
    auto code_point = static_cast<std::uint32_t>(rng.below(limit));
    for (std::uint64_t k = 0; k < run; ++k) {
      if (!repeat) code_point = static_cast<std::uint32_t>(rng.below(limit));
      append_utf8(text, code_point);
    }
  }
  return text;
}

}  // namespace ds::test
