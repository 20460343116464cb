// Reports against the shipped JSON Schemas.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace ds::test {

// Validates every line of a report against libcore/config/schema/NAME.json, NAME taken from its
// "schema" ("deepseek/NAME/1"). Returns what is wrong, one text a problem; a line that is no JSON
// or names a schema we do not ship is a problem too.
std::vector<std::string> validate_report(const std::filesystem::path& report);

// Validates one document against the schema in a file (draft 7). Returns what is wrong.
std::vector<std::string> validate_document(const nlohmann::json& document,
                                           const std::filesystem::path& schema);

}  // namespace ds::test
