// Systematic corruptions of sound files. A group makes them by rules from one sound thing and says
// which rules of deepseek-check they set off; mutation_test.cpp runs them all.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/core/check/model_fixture.h"

namespace ds::test {

// Where a finding must point. Empty and 0: not compared. `file` is a name inside the checked
// folder, "." the folder itself.
struct Place {
  std::string file, tensor, key;
  std::int64_t line = 0;
};

// `change` was done to `subject`: {"q_b_proj.weight: dtype", "F16"}.
struct Mutation {
  std::string subject;
  std::string change;
  Place place;
  std::function<std::vector<check::Finding>()> check;
};

// Mutations whose subject and change match (shell patterns, alternatives between '|') set off
// exactly these rules, separated by blanks, and the first of them at the mutation's place. What
// `at` gives differs from that place; "*" there: not compared.
struct Caught {
  const char* subject;
  const char* change;
  const char* rules;
  Place at = {};
};

// Mutations that set off nothing, and why that is right.
struct Uncaught {
  const char* group;
  const char* subject;
  const char* change;
  bool harmless;  // false: something else may be meant, which no file says
  const char* reason;
};
// The one table of them; docs/check-mutations.md prints it.
const std::vector<Uncaught>& uncaught_mutations();

struct MutationGroup {
  std::string name;
  std::string about;                   // what is spoilt
  std::vector<check::Finding> sound;   // findings of the sound thing; none of them counts
  std::vector<std::string> tolerated;  // rules that the sound thing may have
  std::vector<Mutation> mutations;
  std::vector<Caught> caught;  // the first row that matches counts
};

MutationGroup file_mutations();
MutationGroup header_mutations();
MutationGroup index_mutations();
MutationGroup tensor_mutations();
MutationGroup plain_tensor_mutations();
MutationGroup config_mutations();
MutationGroup generation_mutations();
MutationGroup tokenizer_config_mutations();
MutationGroup tokenizer_mutations();
MutationGroup token_id_mutations();
MutationGroup adapter_config_mutations();
MutationGroup adapter_tensor_mutations();
MutationGroup dataset_mutations();
MutationGroup data_mutations();

// Whether `text` matches one of the patterns between '|'.
bool matches(const char* patterns, const std::string& text);

// A folder that is written once; mutations replace one file of it for the time of a check.
class SpoiltFolder {
 public:
  using Check = std::function<std::vector<check::Finding>(const std::filesystem::path&)>;
  explicit SpoiltFolder(Check check) : folder_("mutation"), check_(std::move(check)) {}
  const std::filesystem::path& root() const { return folder_.root(); }
  std::vector<check::Finding> sound() const { return check_(root()); }
  // Findings with `bytes` in the place of file `name`.
  std::vector<check::Finding> with(const std::string& name, const std::string& bytes) const;
  std::vector<check::Finding> without(const std::string& name) const;

 private:
  TempFolder folder_;
  Check check_;
};
// A folder for models that are written whole; `deep` reads the data.
std::shared_ptr<SpoiltFolder> model_folder(const Model& model, bool deep = false);
std::vector<check::Finding> check_model(const SpoiltFolder& folder, const Model& model,
                                        bool deep = false);

// One tensor of each kind: of names that differ in layer and expert only, the first. With
// `layers_apart`, of layers with experts, without, and of prediction one each.
std::vector<std::string> one_of_each_kind(const Model& model, bool layers_apart = false);

// "mlp.gate.weight" of "model.layers.3.mlp.gate.weight".
std::string without_layer(const std::string& name);

// Every change of one JSON value that its type suggests: removed, null, other types, other values.
struct JsonChange {
  std::string change;
  nlohmann::json value;  // "removed": not used
};
std::vector<JsonChange> json_changes(const nlohmann::json& value);
// All members of `document`, however deep, with all their changes: f(path "a.b.0", change, the
// changed document). Members for which `skip` is true stay as they are.
void each_json_change(
    const nlohmann::json& document, const std::function<bool(const std::string&)>& skip,
    const std::function<void(const std::string&, const std::string&, const nlohmann::json&)>& f);
// Text of an object with each key misspelt, and each written twice: f(key, change, text).
void each_key_change(
    const nlohmann::json& object,
    const std::function<void(const std::string&, const std::string&, const std::string&)>& f);

}  // namespace ds::test
