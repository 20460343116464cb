#include "libcore/check/rule_tables.h"

namespace ds::check {

std::span<const Rule> tokenizer_rules() { return {}; }

}  // namespace ds::check
