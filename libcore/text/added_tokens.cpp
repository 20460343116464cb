#include "libcore/text/added_tokens.h"

#include <cstring>

namespace ds {

std::array<std::int32_t, 256> TextSet::filled() {
  std::array<std::int32_t, 256> none{};
  none.fill(-1);
  return none;
}

std::int32_t TextSet::child_of(std::int32_t node, char byte) const {
  std::int32_t child = nodes_[static_cast<std::size_t>(node)].child;
  while (child >= 0 && nodes_[static_cast<std::size_t>(child)].byte != byte) {
    child = nodes_[static_cast<std::size_t>(child)].sibling;
  }
  return child;
}

void TextSet::add(std::string_view text, std::int32_t value) {
  std::int32_t& first = first_[static_cast<unsigned char>(text[0])];
  if (first < 0) {
    first = static_cast<std::int32_t>(nodes_.size());
    nodes_.push_back({-1, -1, -1, text[0]});
    ++first_bytes_;
    only_first_ = text[0];
  }
  std::int32_t node = first;
  for (const char byte : text.substr(1)) {
    std::int32_t child = child_of(node, byte);
    if (child < 0) {
      child = static_cast<std::int32_t>(nodes_.size());
      nodes_.push_back({-1, -1, nodes_[static_cast<std::size_t>(node)].child, byte});
      nodes_[static_cast<std::size_t>(node)].child = child;
    }
    node = child;
  }
  nodes_[static_cast<std::size_t>(node)].value = value;
}

TextSet::Match TextSet::find(std::string_view text, std::size_t from) const {
  if (first_bytes_ == 0) return {};
  for (std::size_t at = from; at < text.size(); ++at) {
    if (first_bytes_ == 1) {
      const void* hit = std::memchr(text.data() + at, only_first_, text.size() - at);
      if (hit == nullptr) return {};
      at = static_cast<std::size_t>(static_cast<const char*>(hit) - text.data());
    }
    std::int32_t node = first_[static_cast<unsigned char>(text[at])];
    Match longest;
    for (std::size_t end = at + 1; node >= 0; ++end) {
      const std::int32_t value = nodes_[static_cast<std::size_t>(node)].value;
      if (value >= 0) longest = {at, end, value};
      if (end == text.size()) break;
      node = child_of(node, text[end]);
    }
    if (longest.value >= 0) return longest;
  }
  return {};
}

}  // namespace ds
