#include "tests/support/schema.h"

#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

#include "tests/support/paths.h"

namespace ds::test {
namespace {

// nullptr when there is no such file.
std::unique_ptr<valijson::Schema> read_schema(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file.good()) return nullptr;
  const auto document = nlohmann::json::parse(file);
  auto schema = std::make_unique<valijson::Schema>();
  valijson::SchemaParser(valijson::SchemaParser::kDraft7)
      .populateSchema(valijson::adapters::NlohmannJsonAdapter(document), *schema);
  return schema;
}

void validate(const nlohmann::json& document, const valijson::Schema& schema,
              const std::string& where, std::vector<std::string>& problems) {
  valijson::ValidationResults results;
  valijson::Validator validator;
  if (validator.validate(schema, valijson::adapters::NlohmannJsonAdapter(document), &results)) {
    return;
  }
  valijson::ValidationResults::Error error;
  while (results.popError(error)) problems.push_back(where + error.description);
}

}  // namespace

std::vector<std::string> validate_document(const nlohmann::json& document,
                                           const std::filesystem::path& schema) {
  const auto parsed = read_schema(schema);
  if (parsed == nullptr) return {"cannot open " + schema.string()};
  std::vector<std::string> problems;
  validate(document, *parsed, "", problems);
  return problems;
}

std::vector<std::string> validate_report(const std::filesystem::path& report) {
  std::vector<std::string> problems;
  std::map<std::string, std::unique_ptr<valijson::Schema>> schemas;
  std::ifstream in(report);
  if (!in.good()) return {"cannot open " + report.string()};
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    const std::string where = "line " + std::to_string(number) + ": ";
    const auto event = nlohmann::json::parse(line, nullptr, false);
    const std::string name = event.is_object() ? event.value("schema", "") : "";
    if (name.rfind("deepseek/", 0) != 0 || !name.ends_with("/1")) {
      problems.push_back(where + "no schema named");
      continue;
    }
    auto& schema = schemas[name];
    if (schema == nullptr) {
      const auto path = source_dir() / "libcore" / "config" / "schema" /
                        (name.substr(9, name.size() - 11) + ".json");
      schema = read_schema(path);
      if (schema == nullptr) {
        problems.push_back(where + "no schema is shipped for " + name);
        continue;
      }
    }
    validate(event, *schema, where, problems);
  }
  return problems;
}

}  // namespace ds::test
