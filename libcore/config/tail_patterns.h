// The keys of rank_pattern and alpha_pattern, matched as PEFT does.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "libcore/config/path_regex.h"

namespace ds {

// Expressions of which each matches a path when PEFT's re.match of (.*\.)?(KEY)$ does. A key that
// is a name, with '.' for any one ASCII character and '\' before a character that stands for
// itself, is looked up: an adapter with a rank of its own for each of 40,000 experts has as many
// keys, and to try each of them on each module would take hours. All others are tried one after
// another.
class TailPatterns {
 public:
  // `what` names the list in errors. Throws Error(kBadInput) as PathRegex.
  explicit TailPatterns(std::string what) : what_(std::move(what)) {}
  void add(const std::string& key);
  std::size_t size() const { return size_; }

  // The indices of the keys that match, ascending; valid until the next call. Throws
  // Error(kBadInput) when an expression takes too many steps.
  const std::vector<std::size_t>& matching(std::string_view path) const;

 private:
  // Keys of one length with '.' at the same places.
  struct Shape {
    std::vector<std::size_t> wild;
    std::unordered_map<std::string, std::vector<std::size_t>> keys;
  };
  std::string what_;
  std::size_t size_ = 0;
  std::unordered_map<std::size_t, std::map<std::vector<std::size_t>, Shape>> by_length_;
  std::vector<std::pair<std::size_t, PathRegex>> expressions_;
  mutable std::vector<std::size_t> found_;
  mutable std::string tail_;
};

// What the keys give: the first one that matches wins.
template <class Value>
class PatternValues {
 public:
  PatternValues(const std::vector<std::pair<std::string, Value>>& entries, const std::string& what)
      : entries_(entries), patterns_(what), used_(entries.size()) {
    for (const auto& [key, value] : entries) patterns_.add(key);
  }
  // By the first key that matches one of the names of a module.
  template <class... Names>
  std::optional<Value> find(const Names&... names) {
    std::size_t first = entries_.size();
    const auto look = [&](std::string_view name) {
      for (const std::size_t i : patterns_.matching(name)) {
        used_[i] = true;
        first = std::min(first, i);
      }
    };
    (look(names), ...);
    return first == entries_.size() ? std::nullopt : std::optional<Value>(entries_[first].second);
  }
  // The keys that matched no path so far, in their order.
  std::vector<std::string> unused() const {
    std::vector<std::string> out;
    for (std::size_t i = 0; i < used_.size(); ++i) {
      if (!used_[i]) out.push_back(entries_[i].first);
    }
    return out;
  }

 private:
  const std::vector<std::pair<std::string, Value>>& entries_;
  TailPatterns patterns_;
  std::vector<bool> used_;
};

}  // namespace ds
