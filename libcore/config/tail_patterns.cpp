#include "libcore/config/tail_patterns.h"

#include <algorithm>

namespace ds {
namespace {

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

// The key without its backslashes, and the places of '.' that stand for any character; nothing when
// it is more than a name.
std::optional<std::pair<std::string, std::vector<std::size_t>>> as_name(const std::string& key) {
  std::pair<std::string, std::vector<std::size_t>> out;
  auto& [text, wild] = out;
  for (std::size_t i = 0; i < key.size(); ++i) {
    if (key[i] == '.') {
      wild.push_back(text.size());
    } else if (key[i] == '\\' && i + 1 < key.size() && (key[i + 1] == '.' || key[i + 1] == '-')) {
      ++i;
    } else if (!is_plain(key[i])) {
      return std::nullopt;
    }
    text += key[i];
  }
  if (text.empty()) return std::nullopt;
  return out;
}

bool is_one_character(char c) { return static_cast<unsigned char>(c) < 0x80 && c != '\n'; }

}  // namespace

void TailPatterns::add(const std::string& key) {
  const std::size_t index = size_++;
  if (const auto name = as_name(key)) {
    const auto& [text, wild] = *name;
    Shape& shape = by_length_[text.size()][wild];
    shape.wild = wild;
    shape.keys[text].push_back(index);
  } else {
    expressions_.emplace_back(index, PathRegex(key, PathRegex::Anchor::kTail, what_));
  }
}

const std::vector<std::size_t>& TailPatterns::matching(std::string_view path) const {
  found_.clear();
  for (std::size_t begin = 0; !by_length_.empty() && begin <= path.size();) {
    const std::string_view tail = path.substr(begin);
    if (const auto shapes = by_length_.find(tail.size()); shapes != by_length_.end()) {
      for (const auto& [wild, shape] : shapes->second) {
        tail_ = tail;
        bool fits = true;
        for (const std::size_t at : wild) {
          fits = fits && is_one_character(tail_[at]);
          tail_[at] = '.';
        }
        if (!fits) continue;
        const auto keys = shape.keys.find(tail_);
        if (keys == shape.keys.end()) continue;
        found_.insert(found_.end(), keys->second.begin(), keys->second.end());
      }
    }
    const std::size_t dot = path.find('.', begin);
    if (dot == std::string_view::npos) break;
    begin = dot + 1;
  }
  for (const auto& [index, expression] : expressions_) {
    if (expression.matches(path)) found_.push_back(index);
  }
  // A key with '.' may fit more than one tail of the path.
  std::sort(found_.begin(), found_.end());
  found_.erase(std::unique(found_.begin(), found_.end()), found_.end());
  return found_;
}

}  // namespace ds
