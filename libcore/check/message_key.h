// Which key an error of a reader is about.
#pragma once

#include <string>
#include <string_view>

namespace ds::check {

// "rank_pattern" of "FILE: rank_pattern: ...", "FILE: rank_pattern is ..." or "... key
// 'rank_pattern' ...", "rope_scaling.factor" of "FILE: rope_scaling: factor is ..."; empty when the
// message names none.
std::string key_in_message(std::string_view message, std::string_view file);

}  // namespace ds::check
