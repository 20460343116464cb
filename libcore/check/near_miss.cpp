#include "libcore/check/near_miss.h"

#include <algorithm>
#include <map>

namespace ds::check {
namespace {

constexpr std::string_view kBar = "\uff5c";
constexpr std::string_view kLow = "\u2581";
constexpr std::size_t kLongest = 64;  // bytes of any control token, and of a misspelt one

// Letters, digits and the slash of what stands between the angle brackets, with `fold` in lower
// case. A text with other characters than those that are confused gives nothing.
std::string skeleton(std::string_view token, bool fold = true) {
  std::string out;
  for (std::size_t i = 0; i < token.size();) {
    const std::string_view rest = token.substr(i);
    if (rest.starts_with(kBar) || rest.starts_with(kLow)) {
      i += 3;
      continue;
    }
    const char c = token[i++];
    if (c == '|' || c == '_' || c == ' ' || c == '-') continue;
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !(c >= '0' && c <= '9') && c != '/' && c != '<' && c != '>') return "";
    out += static_cast<char>(fold && c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  }
  return out;
}

}  // namespace

const std::vector<std::string>& control_tokens() {
  static const std::vector<std::string> kTokens{"<\uff5cbegin\u2581of\u2581sentence\uff5c>",
                                                "<\uff5cend\u2581of\u2581sentence\uff5c>",
                                                "<\uff5c\u2581pad\u2581\uff5c>",
                                                "<\uff5cfim\u2581hole\uff5c>",
                                                "<\uff5cfim\u2581begin\uff5c>",
                                                "<\uff5cfim\u2581end\uff5c>",
                                                "<\uff5cUser\uff5c>",
                                                "<\uff5cAssistant\uff5c>",
                                                "<|EOT|>",
                                                "<\uff5ctool\u2581calls\u2581begin\uff5c>",
                                                "<\uff5ctool\u2581calls\u2581end\uff5c>",
                                                "<\uff5ctool\u2581call\u2581begin\uff5c>",
                                                "<\uff5ctool\u2581call\u2581end\uff5c>",
                                                "<\uff5ctool\u2581outputs\u2581begin\uff5c>",
                                                "<\uff5ctool\u2581outputs\u2581end\uff5c>",
                                                "<\uff5ctool\u2581output\u2581begin\uff5c>",
                                                "<\uff5ctool\u2581output\u2581end\uff5c>",
                                                "<\uff5ctool\u2581sep\uff5c>",
                                                "<\uff5csearch\u2581begin\uff5c>",
                                                "<\uff5csearch\u2581end\uff5c>",
                                                "<think>",
                                                "</think>"};
  return kTokens;
}

std::vector<NearMiss> near_misses(std::string_view text, std::size_t limit) {
  static const std::map<std::string, std::string> kBySkeleton = [] {
    std::map<std::string, std::string> map;
    for (const std::string& token : control_tokens()) map[skeleton(token)] = token;
    return map;
  }();
  std::vector<NearMiss> found;
  for (std::size_t at = text.find('<'); at != std::string_view::npos && found.size() < limit;
       at = text.find('<', at + 1)) {
    const std::size_t end = text.substr(at, kLongest).find('>');
    if (end == std::string_view::npos) continue;
    const std::string_view token = text.substr(at, end + 1);
    // Words in plain angle brackets are text (<user>, <pad>), but for the think tags.
    const bool barred =
        token.find('|') != std::string_view::npos || token.find(kBar) != std::string_view::npos;
    const auto known = kBySkeleton.find(skeleton(token));
    if (known == kBySkeleton.end() || known->second == token) continue;
    if (!barred && known->second.find("think>") == std::string::npos) continue;
    found.push_back({at, std::string(token), known->second});
  }
  return found;
}

bool same_letters(const NearMiss& miss) {
  return skeleton(miss.found, false) == skeleton(miss.meant, false);
}

std::vector<std::string> wide_tokens(std::string_view text) {
  std::vector<std::string> found;
  const std::string opening = "<" + std::string(kBar);
  const std::string closing = std::string(kBar) + ">";
  for (std::size_t at = text.find(opening); at != std::string_view::npos;
       at = text.find(opening, at + 1)) {
    const std::size_t end = text.substr(at, kLongest).find(closing);
    if (end == std::string_view::npos) continue;
    const std::string token(text.substr(at, end + closing.size()));
    if (std::find(found.begin(), found.end(), token) == found.end()) found.push_back(token);
  }
  return found;
}

}  // namespace ds::check
