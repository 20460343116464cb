// Tokens to tree.
#pragma once

#include <string_view>

#include "libcore/text/jinja_tree.h"

namespace ds::jinja {

// Throws JinjaError(kSyntax, kUnsupported, kLimit). The depth of the tree is bounded.
Block parse(std::string_view text);

}  // namespace ds::jinja
