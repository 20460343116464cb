// JSON reading with paths in the error messages, and the helpers every reader shares.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ds {

// How deep arrays and objects may be nested in anything we read.
inline constexpr int kJsonDepthLimit = 256;

// Parses a whole file (size limit 512 MiB, nesting limit 256, duplicate keys refused by name, a
// UTF-8 byte order mark skipped). Throws Error(kBadInput) "FILE: line L, column C: ..." (columns
// are bytes, from 1) or Error(kIo).
nlohmann::json parse_json_file(const std::filesystem::path& path);
nlohmann::json parse_json_text(std::string_view text, const std::string& name);

// Why a text is no JSON value.
struct JsonProblem {
  std::string reason;      // "unexpected '}' while parsing value; expected ..."
  std::size_t offset = 0;  // byte of the text at which it shows
};
// The parser beneath: no exceptions for bad input. Returns the problem, or nothing when `value` was
// set. Numbers beyond 64 bits become floating point; beyond double they are a problem.
std::optional<JsonProblem> try_parse_json(std::string_view text, bool allow_duplicate_keys,
                                          nlohmann::json& value);
// The same with the order of keys kept.
std::optional<JsonProblem> try_parse_json(std::string_view text, bool allow_duplicate_keys,
                                          nlohmann::ordered_json& value);
// Duplicate keys allowed: the last one counts, and `twice` gets the first key that is there twice
// in one object (it stays as it is when there is none).
std::optional<JsonProblem> try_parse_json(std::string_view text, nlohmann::json& value,
                                          std::optional<std::string>& twice);
std::optional<JsonProblem> try_parse_json(std::string_view text, nlohmann::ordered_json& value,
                                          std::optional<std::string>& twice);

// Typed access to one object of a file: get("hidden_size") throws Error(kBadInput) naming the file,
// the key path, the value found and the type needed. A null counts as absent.
class JsonObject {
 public:
  // `value` must outlive this object. `where` is "FILE" or "FILE: a.b". Throws Error(kBadInput)
  // when `value` is not an object.
  JsonObject(const nlohmann::json& value, std::string where);
  const nlohmann::json& value() const { return *value_; }
  const std::string& where() const { return where_; }
  bool has(std::string_view key) const;  // present and not null
  // A floating-point number without a fraction (4.0) is an integer too.
  std::int64_t integer(std::string_view key) const;
  std::int64_t integer(std::string_view key, std::int64_t fallback) const;
  double number(std::string_view key) const;  // an integer is accepted
  double number(std::string_view key, double fallback) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::string string(std::string_view key) const;
  std::string string(std::string_view key, std::string_view fallback) const;
  JsonObject object(std::string_view key) const;

 private:
  const nlohmann::json& at(std::string_view key) const;
  std::string path_of(std::string_view key) const;
  [[noreturn]] void wrong_type(std::string_view key, std::string_view needed) const;
  const nlohmann::json* value_;
  std::string where_;
};

// The candidate nearest to `word` by edit distance (swapped neighbours count as one edit; case and
// the difference of '-' and '_' do not count), empty when none is near (for "did you mean").
std::string nearest_name(std::string_view word, const std::vector<std::string>& candidates);

// Stable text of a JSON document: keys sorted (nlohmann::json keeps them so), non-ASCII as is,
// `indent` spaces a level or one line when negative; no trailing newline. NaN and infinity become
// null.
std::string dump_json(const nlohmann::json& value, int indent);

}  // namespace ds
