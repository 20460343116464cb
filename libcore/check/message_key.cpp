#include "libcore/check/message_key.h"

#include <algorithm>

namespace ds::check {
namespace {

// Takes a key off the front of `text`: letters, digits, '_' and '.'.
std::string_view take_word(std::string_view& text) {
  const auto end = std::find_if_not(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.';
  });
  const auto size = static_cast<std::size_t>(end - text.begin());
  const std::string_view word = text.substr(0, size);
  text.remove_prefix(size);
  return word;
}

}  // namespace

std::string key_in_message(std::string_view message, std::string_view file) {
  std::string key;
  if (message.starts_with(file) && message.size() > file.size() + 2) {
    std::string_view rest = message.substr(file.size() + 2);
    for (int depth = 0; depth < 2; ++depth) {
      const std::string_view word = take_word(rest);
      const bool path = word.find_first_of("_.") != std::string_view::npos || depth > 0;
      const bool said =
          !word.empty() && (rest.starts_with(":") ||
                            (path && (rest.starts_with(" is ") || rest.starts_with(" holds ") ||
                                      rest.starts_with(" '"))));
      if (!said || word == "key") break;
      key += (key.empty() ? "" : ".") + std::string(word);
      if (!rest.starts_with(": ")) break;
      rest.remove_prefix(2);
    }
  }
  constexpr std::string_view kQuoted = "key '";
  const std::size_t quoted = message.find(kQuoted);
  if (quoted != std::string_view::npos) {
    const std::string_view rest = message.substr(quoted + kQuoted.size());
    key += (key.empty() ? "" : ".") + std::string(rest.substr(0, rest.find('\'')));
  }
  return key;
}

}  // namespace ds::check
