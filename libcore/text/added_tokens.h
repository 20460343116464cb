// Added tokens are cut out of the raw text before anything else (reference/text.md section 1).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace ds {

// A set of texts, found leftmost first and longest first. Matching is by bytes; the texts are whole
// UTF-8 sequences, so that in valid UTF-8 a match begins and ends between characters.
class TextSet {
 public:
  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::int32_t value = -1;  // -1: no match
  };
  // `text` is not empty.
  void add(std::string_view text, std::int32_t value);
  // The first match that begins at `from` or later.
  Match find(std::string_view text, std::size_t from) const;

 private:
  struct Node {
    std::int32_t value = -1;
    std::int32_t child = -1;
    std::int32_t sibling = -1;
    char byte = 0;
  };
  std::int32_t child_of(std::int32_t node, char byte) const;
  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::array<std::int32_t, 256> first_ = filled();  // children of the root
  int first_bytes_ = 0;
  char only_first_ = 0;
  static std::array<std::int32_t, 256> filled();
};

}  // namespace ds
