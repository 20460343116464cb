// Reports against the shipped JSON Schemas.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace ds::test {

// Validates every line of a report against libcore/config/schema/NAME.json, NAME taken from its
// "schema" ("deepseek/NAME/1"). Returns what is wrong, one text a problem; a line that is no JSON
// or names a schema we do not ship is a problem too.
std::vector<std::string> validate_report(const std::filesystem::path& report);

}  // namespace ds::test
