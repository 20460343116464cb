#include "libcore/config/tail_patterns.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "libcore/base/error.h"

namespace {
using namespace ds;

const std::vector<std::string> kKeys = {"q_proj",
                                        "self_attn.q_proj",
                                        "self.attn.q_proj",
                                        "self_attn\\.q_proj",
                                        ".",
                                        "1.q_proj",
                                        "layers.1",
                                        "layers\\.1\\..*",
                                        "_proj",
                                        "q.proj",
                                        "o_proj|q_proj",
                                        "^q_proj",
                                        "",
                                        "q_proj$",
                                        "a.b",
                                        "a\\.b",
                                        "a\\-b",
                                        "a-b",
                                        "\\d",
                                        "model",
                                        "model\\.layers",
                                        "x.a.b",
                                        "(q_proj)",
                                        "....",
                                        "b"};
const std::vector<std::string> kPaths = {"model.layers.1.self_attn.q_proj",
                                         "model.layers.11.self_attn.q_proj",
                                         "q_proj",
                                         "q.proj",
                                         "my_q_proj",
                                         "model.layers.1",
                                         "x.a.b",
                                         "x.a-b",
                                         "a.b.a.b",
                                         "b",
                                         ".",
                                         "..",
                                         "a..b",
                                         "x.1",
                                         "abcd",
                                         "q_proj.",
                                         ""};
}  // namespace

TEST_CASE("patterns match what the expression of each key matches") {
  TailPatterns patterns("rank_pattern");
  for (const std::string& key : kKeys) patterns.add(key);
  CHECK(patterns.size() == kKeys.size());
  std::size_t matches = 0;
  for (const std::string& path : kPaths) {
    std::vector<std::size_t> want;
    for (std::size_t i = 0; i < kKeys.size(); ++i) {
      if (PathRegex(kKeys[i], PathRegex::Anchor::kTail, "key").matches(path)) want.push_back(i);
    }
    CHECK_MESSAGE(patterns.matching(path) == want, path);
    matches += want.size();
  }
  CHECK(matches > 30);
}

TEST_CASE("the first key that matches one of the names gives the value") {
  const std::vector<std::pair<std::string, int>> entries{
      {"up_proj\\.weight", 1}, {"up_proj", 2}, {"down_proj", 3}, {"layers.*", 4}};
  PatternValues<int> values(entries, "rank_pattern");
  CHECK(values.find("layers.0.up_proj").value() == 2);
  CHECK(values.unused() == std::vector<std::string>{"up_proj\\.weight", "down_proj"});
  CHECK(values.find("layers.0.up_proj", "layers.0.up_proj.weight").value() == 1);
  CHECK_FALSE(values.find("gate_proj").has_value());
  CHECK(values.unused() == std::vector<std::string>{"down_proj"});
}

TEST_CASE("a key that is no expression is refused with its list's name") {
  TailPatterns patterns("alpha_pattern");
  CHECK_THROWS_WITH_AS(patterns.add("a(b"), doctest::Contains("alpha_pattern"), Error);
}

TEST_CASE("a rank of its own for every expert of a large model") {
  std::vector<std::pair<std::string, int>> entries;
  for (int layer = 0; layer < 60; ++layer) {
    for (int expert = 0; expert < 256; ++expert) {
      entries.emplace_back("model\\.layers\\." + std::to_string(layer) + "\\.mlp\\.experts\\." +
                               std::to_string(expert) + "\\.up_proj",
                           layer * 256 + expert);
    }
  }
  PatternValues<int> values(entries, "rank_pattern");
  bool right = true;
  for (int layer = 0; layer < 60; ++layer) {
    for (int expert = 0; expert < 256; ++expert) {
      const std::string path = "model.layers." + std::to_string(layer) + ".mlp.experts." +
                               std::to_string(expert) + ".up_proj";
      right = right && values.find(path) == layer * 256 + expert;
    }
  }
  CHECK(right);
  CHECK(values.unused().empty());
}
