#include "libcore/check/rule_tables.h"

namespace ds::check {

std::span<const Rule> adapter_rules() { return {}; }

}  // namespace ds::check
