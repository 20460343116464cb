// A template as tokens, white space control applied.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libcore/text/jinja.h"

namespace ds::jinja {

struct Token {
  enum class Kind {
    kData,        // text between tags
    kBlockBegin,  // {%
    kBlockEnd,
    kPrintBegin,  // {{
    kPrintEnd,
    kName,
    kString,  // text: its value
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text;
  int line = 1;

  bool is(std::string_view operator_text) const {
    return kind == Kind::kOperator && text == operator_text;
  }
  bool is_name(std::string_view name) const { return kind == Kind::kName && text == name; }
};

// The last token is kEnd. Throws JinjaError(kSyntax or kUnsupported).
std::vector<Token> tokenize(std::string_view text);

}  // namespace ds::jinja
