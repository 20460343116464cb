#include "libcore/base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <iterator>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/mapped_file.h"

namespace ds {
namespace {

using nlohmann::json;

constexpr std::size_t kLargestFile = std::size_t{512} << 20;

// A pointer that tells how far the parser has read: the only way to learn the place of a problem
// that nlohmann's parser does not itself call one.
class TrackedIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  TrackedIterator() = default;
  TrackedIterator(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}
  reference operator*() const { return *at_; }
  TrackedIterator& operator++() {
    *furthest_ = ++at_;
    return *this;
  }
  TrackedIterator operator++(int) {
    TrackedIterator old = *this;
    ++*this;
    return old;
  }
  bool operator==(const TrackedIterator& other) const { return at_ == other.at_; }
  bool operator!=(const TrackedIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_ = nullptr;
  const char** furthest_ = nullptr;
};

// "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while parsing
// value - invalid literal; last read: 'nu'; expected ..." without the parts we say better.
std::string plain_reason(std::string text) {
  if (const auto at = text.find("syntax error "); at != std::string::npos) {
    text.erase(0, at + 13);
  } else if (const auto end = text.find("] "); end != std::string::npos) {
    text.erase(0, end + 2);
  }
  if (const auto at = text.find("; last read: '"); at != std::string::npos) {
    const std::size_t first = at + 14;
    const std::size_t last = text.rfind('\'');
    const std::size_t length = last != std::string::npos && last > first ? last - first : 0;
    std::string seen = text.substr(first, length);
    if (seen.size() > 24) seen.erase(0, seen.size() - 24);
    const std::string rest = text.substr(std::min(text.size(), first + length + 1));
    text = text.substr(0, at) + " after " + quote_text(seen) + rest;
  }
  if (const auto at = text.find("number overflow parsing '"); at != std::string::npos) {
    text = "a number is too large for a double: " + quote_text(text.substr(at + 25), 40);
  }
  return text.size() > 400 ? text.substr(0, 400) + "..." : text;
}

// The objects of nlohmann::ordered_json are lists of members that are searched from the front; this
// keeps an object of very many keys from taking quadratic time.
class OrderedKeys {
 public:
  // Position of `name` among `members`, or their number when it is new (the caller appends it).
  template <class Members>
  std::size_t find(const Members& members, const std::string& name) {
    if (members.size() < kListed) {
      std::size_t at = 0;
      while (at < members.size() && members[at].first != name) ++at;
      return at;
    }
    for (; known_ < members.size(); ++known_) positions_.emplace(members[known_].first, known_);
    const auto at = positions_.find(name);
    return at == positions_.end() ? members.size() : at->second;
  }

 private:
  static constexpr std::size_t kListed = 32;
  std::size_t known_ = 0;
  std::unordered_map<std::string, std::size_t> positions_;
};

// Builds the document as nlohmann's own parser does, with a nesting limit and a check for duplicate
// keys on the way. Json is nlohmann::json or nlohmann::ordered_json.
template <class Json>
class Builder : public nlohmann::json_sax<Json> {
  using Base = nlohmann::json_sax<Json>;

 public:
  // `twice`, when given, gets the first duplicate key.
  Builder(Json& root, bool allow_duplicates, std::optional<std::string>* twice)
      : root_(root), allow_duplicates_(allow_duplicates), twice_(twice) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(typename Base::number_integer_t value) override { return put(value); }
  bool number_unsigned(typename Base::number_unsigned_t value) override { return put(value); }
  bool number_float(typename Base::number_float_t value, const std::string&) override {
    return put(value);
  }
  bool string(std::string& value) override { return put(std::move(value)); }
  bool binary(typename Base::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::value_t::object); }
  bool start_array(std::size_t) override { return open(Json::value_t::array); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string& name) override {
    auto& members = *stack_.back()->template get_ptr<typename Json::object_t*>();
    bool fresh = false;
    if constexpr (std::is_same_v<Json, nlohmann::ordered_json>) {
      // Members are moved by copying when the list grows: make that rare.
      if (members.empty()) members.reserve(8);
      using Members = typename Json::object_t::Container;
      const std::size_t at = keys_.back().find(static_cast<const Members&>(members), name);
      fresh = at == members.size();
      if (fresh) members.emplace_back(name, nullptr);
      slot_ = &(members.begin() + static_cast<std::ptrdiff_t>(at))->second;
    } else {
      const auto [member, added] = members.try_emplace(name);
      fresh = added;
      slot_ = &member->second;
    }
    if (!fresh && !allow_duplicates_) {
      problem_ = "the key " + quote_text(name) + " is there twice";
      return false;
    }
    if (!fresh && twice_ != nullptr && !*twice_) *twice_ = name;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    problem_ = plain_reason(error.what());
    position_ = position;
    return false;
  }

  const std::string& problem() const { return problem_; }
  // Bytes read when the parser gave up; 0 for a problem found here.
  std::size_t position() const { return position_; }

 private:
  template <class T>
  Json* place(T&& value) {
    if (stack_.empty()) {
      root_ = Json(std::forward<T>(value));
      return &root_;
    }
    if (Json& top = *stack_.back(); top.is_array()) {
      auto& elements = *top.template get_ptr<typename Json::array_t*>();
      elements.emplace_back(std::forward<T>(value));
      return &elements.back();
    }
    *slot_ = Json(std::forward<T>(value));
    return slot_;
  }
  template <class T>
  bool put(T&& value) {
    place(std::forward<T>(value));
    return true;
  }
  bool open(typename Json::value_t type) {
    if (stack_.size() >= static_cast<std::size_t>(kJsonDepthLimit)) {
      problem_ = fmt::format("nested deeper than {} levels", kJsonDepthLimit);
      return false;
    }
    stack_.push_back(place(type));
    keys_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }

  Json& root_;
  bool allow_duplicates_;
  std::optional<std::string>* twice_;
  std::vector<Json*> stack_;
  std::vector<OrderedKeys> keys_;  // one for each level of stack_
  Json* slot_ = nullptr;
  std::string problem_;
  std::size_t position_ = 0;
};

std::string type_and_value(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  if (value.is_null()) return "null";
  if (value.is_string()) return "the string " + quote_text(value.get_ref<const std::string&>(), 60);
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

template <class Json>
std::optional<JsonProblem> try_parse(std::string_view text, bool allow_duplicate_keys, Json& value,
                                     std::optional<std::string>* twice = nullptr) {
  const char* first = text.data() == nullptr ? "" : text.data();
  const char* last = first + text.size();
  Builder<Json> builder(value, allow_duplicate_keys, twice);
  JsonProblem problem;
  if (Json::sax_parse(first, last, &builder)) {
    // The parser takes a zero byte for the end of its input; no JSON text has one.
    const std::size_t zero = text.find('\0');
    if (zero == std::string_view::npos) return std::nullopt;
    problem.reason = "a zero byte";
    problem.offset = zero;
    value = nullptr;
    return problem;
  }
  problem.reason = builder.problem();
  std::size_t read = builder.position();
  if (read == 0) {
    const char* furthest = first;
    Json ignored;
    Builder<Json> again(ignored, allow_duplicate_keys, nullptr);
    Json::sax_parse(TrackedIterator(first, &furthest), TrackedIterator(last, &furthest), &again);
    read = static_cast<std::size_t>(furthest - first);
  }
  problem.offset = read == 0 ? 0 : std::min(read - 1, text.size());
  value = nullptr;
  return problem;
}

}  // namespace

std::optional<JsonProblem> try_parse_json(std::string_view text, bool allow_duplicate_keys,
                                          json& value) {
  return try_parse(text, allow_duplicate_keys, value);
}

std::optional<JsonProblem> try_parse_json(std::string_view text, bool allow_duplicate_keys,
                                          nlohmann::ordered_json& value) {
  return try_parse(text, allow_duplicate_keys, value);
}

std::optional<JsonProblem> try_parse_json(std::string_view text, json& value,
                                          std::optional<std::string>& twice) {
  return try_parse(text, true, value, &twice);
}

std::optional<JsonProblem> try_parse_json(std::string_view text, nlohmann::ordered_json& value,
                                          std::optional<std::string>& twice) {
  return try_parse(text, true, value, &twice);
}

json parse_json_text(std::string_view text, const std::string& name) {
  if (text.size() > kLargestFile) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: {} of JSON, at most {} are read", name, format_bytes(text.size()),
                            format_bytes(kLargestFile)));
  }
  if (text.empty()) throw Error(ExitCode::kBadInput, name + ": the file is empty");
  json value;
  const auto problem = try_parse_json(text, false, value);
  if (!problem) return value;
  const std::string_view before = text.substr(0, problem->offset);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t start = before.rfind('\n');
  const std::size_t column =
      start == std::string_view::npos ? before.size() + 1 : before.size() - start;
  throw Error(ExitCode::kBadInput,
              fmt::format("{}: line {}, column {}: {}", name, line, column, problem->reason));
}

json parse_json_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  return parse_json_text({reinterpret_cast<const char*>(file.data()), file.size()}, path.string());
}

JsonObject::JsonObject(const json& value, std::string where)
    : value_(&value), where_(std::move(where)) {
  if (!value.is_object()) {
    throw Error(ExitCode::kBadInput,
                where_ + ": found " + type_and_value(value) + ", an object is needed");
  }
}

std::string JsonObject::path_of(std::string_view key) const {
  const bool nested = where_.find(": ") != std::string::npos;
  return where_ + (nested ? "." : ": ") + std::string(key);
}

bool JsonObject::has(std::string_view key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

const json& JsonObject::at(std::string_view key) const {
  const auto found = value_->find(key);
  if (found != value_->end()) return *found;
  std::vector<std::string> names;
  for (const auto& [name, ignored] : value_->items()) names.push_back(name);
  const std::string near = nearest_name(key, names);
  throw Error(ExitCode::kBadInput, path_of(key) + ": the key is missing",
              near.empty() ? "" : "the file has " + quote_text(near));
}

void JsonObject::wrong_type(std::string_view key, std::string_view needed) const {
  throw Error(ExitCode::kBadInput, fmt::format("{}: found {}, {} is needed", path_of(key),
                                               type_and_value(at(key)), needed));
}

std::int64_t JsonObject::integer(std::string_view key) const {
  const json& value = at(key);
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (number <= static_cast<std::uint64_t>(INT64_MAX)) return static_cast<std::int64_t>(number);
  } else if (value.is_number_integer()) {
    return value.get<std::int64_t>();
  } else if (value.is_number_float()) {
    const auto number = value.get<double>();
    if (std::trunc(number) == number && std::fabs(number) < 0x1p53) {
      return static_cast<std::int64_t>(number);
    }
  }
  wrong_type(key, "an integer");
}

std::int64_t JsonObject::integer(std::string_view key, std::int64_t fallback) const {
  return has(key) ? integer(key) : fallback;
}

double JsonObject::number(std::string_view key) const {
  const json& value = at(key);
  if (!value.is_number()) wrong_type(key, "a number");
  return value.get<double>();
}

double JsonObject::number(std::string_view key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool JsonObject::boolean(std::string_view key, bool fallback) const {
  if (!has(key)) return fallback;
  const json& value = at(key);
  if (!value.is_boolean()) wrong_type(key, "true or false");
  return value.get<bool>();
}

std::string JsonObject::string(std::string_view key) const {
  const json& value = at(key);
  if (!value.is_string()) wrong_type(key, "a string");
  return value.get<std::string>();
}

std::string JsonObject::string(std::string_view key, std::string_view fallback) const {
  return has(key) ? string(key) : std::string(fallback);
}

JsonObject JsonObject::object(std::string_view key) const {
  const json& value = at(key);
  if (!value.is_object()) wrong_type(key, "an object");
  return {value, path_of(key)};
}

std::string nearest_name(std::string_view word, const std::vector<std::string>& candidates) {
  const auto plain = [](std::string_view text) {
    std::string out(text);
    for (char& c : out) {
      c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return out;
  };
  constexpr std::size_t kLongestWord = 256;
  const std::string a = plain(word);
  if (a.empty() || a.size() > kLongestWord) return "";
  std::size_t best = std::max<std::size_t>(1, a.size() / 3) + 1;
  std::string nearest;
  std::vector<std::size_t> before;
  std::vector<std::size_t> previous;
  std::vector<std::size_t> row;
  for (const std::string& candidate : candidates) {
    const std::string b = plain(candidate);
    const std::size_t difference = a.size() > b.size() ? a.size() - b.size() : b.size() - a.size();
    if (difference >= best) continue;
    previous.resize(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) previous[j] = j;
    before = previous;
    row = previous;
    for (std::size_t i = 1; i <= a.size(); ++i) {
      row[0] = i;
      for (std::size_t j = 1; j <= b.size(); ++j) {
        row[j] = std::min(
            {previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
        if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
          row[j] = std::min(row[j], before[j - 2] + 1);
        }
      }
      before.swap(previous);
      previous.swap(row);
    }
    if (previous[b.size()] < best) {
      best = previous[b.size()];
      nearest = candidate;
    }
  }
  return nearest;
}

std::string dump_json(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

}  // namespace ds
