// Which template a Jinja text is.
#include <fmt/format.h>

#include <array>

#include "libcore/base/hash.h"
#include "libcore/text/chat_marks.h"
#include "libcore/text/chat_template.h"

namespace ds {
namespace {

struct Published {
  std::string_view digest;  // SHA-256 of the text without white space at both ends
  ChatTemplate kind;
};
constexpr std::array kPublished = {
    Published{"45690185067ea25c073bff2d3e425a45ee2564d2bbf6cdf7d885e139d460b8e0",
              ChatTemplate::kV31},
    Published{"3b8267e54b67df6500f231ffa969955cc9d26b3444a291ced4eb96ca7d3ca1ea",
              ChatTemplate::kV3},
};

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// The first {% or {{ whose end is missing, as an offset; npos: all are closed. Quoted texts inside
// may hold anything.
std::size_t broken_delimiter(std::string_view text) {
  for (std::size_t at = text.find('{'); at != std::string_view::npos; at = text.find('{', at + 1)) {
    const char kind = at + 1 < text.size() ? text[at + 1] : '\0';
    if (kind != '%' && kind != '{' && kind != '#') continue;
    const std::string_view end = kind == '%' ? "%}" : kind == '{' ? "}}" : "#}";
    char quote = 0;
    std::size_t i = at + 2;
    for (; i < text.size(); ++i) {
      const char c = text[i];
      if (quote != 0) {
        if (c == '\\') {
          ++i;
        } else if (c == quote) {
          quote = 0;
        }
      } else if (kind != '#' && (c == '\'' || c == '"')) {
        quote = c;
      } else if (text.substr(i, 2) == end) {
        break;
      } else if (kind == '%' && (text.substr(i, 2) == "{%" || text.substr(i, 2) == "{{")) {
        return at;
      }
    }
    if (i >= text.size()) return at;
    at = i + 1;
  }
  return std::string_view::npos;
}

}  // namespace

DetectedTemplate examine_chat_template(std::string_view template_text) {
  using namespace marks;
  const std::string_view text = trimmed(template_text);
  DetectedTemplate found;
  const std::string digest = sha256(text);
  for (const Published& published : kPublished) {
    if (digest == published.digest) return {published.kind, true, {}};
  }
  const auto has = [&](std::string_view mark) { return text.find(mark) != std::string_view::npos; };
  if (has("DSML")) {
    found.notes.emplace_back(
        "the chat template is that of V3.2 with its DSML tool grammar, which is "
        "not supported");
    return found;
  }
  if (has(kUser) && has(kAssistant)) {
    const bool last_part = has("split('</think>')[-1]") || has("split(\"</think>\")[-1]");
    const bool opens_line = has("<think>\\n") || has("<think>\n");
    if (last_part || (opens_line && !has("thinking"))) {
      found.kind = ChatTemplate::kR1;
    } else if (has(kThinkEnd)) {
      found.kind = ChatTemplate::kV31;
    } else {
      found.kind = ChatTemplate::kV3;
    }
  } else if (has("User: ") && has("Assistant:")) {
    found.kind = ChatTemplate::kV2;
  }
  if (const std::size_t at = broken_delimiter(text); at != std::string_view::npos) {
    found.notes.push_back(
        fmt::format("the chat template has a delimiter without its end at byte {}", at));
  }
  if (!found.kind) {
    if (!text.empty()) found.notes.emplace_back("the chat template is none of DeepSeek's");
    return found;
  }
  if (*found.kind == ChatTemplate::kV31) {
    if (has("<think></think>")) {
      found.notes.emplace_back(
          "the chat template is a known variant of V3.1 that prints "
          "<think></think>, the published one prints </think>");
    }
    if (has("tojson")) {
      found.notes.emplace_back(
          "the chat template is a known variant of V3.1 that prints arguments "
          "with tojson, the published one prints them as they are");
    }
  }
  // The published texts of V2 and R1 are not among the hashes.
  const bool known = *found.kind == ChatTemplate::kV31 || *found.kind == ChatTemplate::kV3;
  if (known && found.notes.empty()) {
    found.notes.push_back(
        fmt::format("the chat template is not the published one of {}, though "
                    "much like it",
                    chat_template_name(*found.kind)));
  }
  return found;
}

std::optional<ChatTemplate> detect_chat_template(std::string_view template_text) {
  return examine_chat_template(template_text).kind;
}

}  // namespace ds
