// Control tokens that are spelt almost right.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ds::check {

// DeepSeek's control tokens: begin, end, pad, roles, tools, fim, search, think.
const std::vector<std::string>& control_tokens();

struct NearMiss {
  std::size_t offset = 0;
  std::string found;
  std::string meant;
};
// Stretches of `text` between < and > that become a control token when bars, low lines, spaces and
// case are ignored, and are not one as they stand; at most `limit`.
std::vector<NearMiss> near_misses(std::string_view text, std::size_t limit);
// Whether bars, low lines and spaces are all that is wrong: with another case it may be the token
// of another model (<|user|>).
bool same_letters(const NearMiss& miss);
// Control tokens with wide bars ("<\uff5c...\uff5c>") in `text`, each once.
std::vector<std::string> wide_tokens(std::string_view text);

}  // namespace ds::check
