#include "libcore/model/adapter_io.h"

#include <limits>

#include "libcore/config/model_config.h"
#include "tests/core/model/adapter_fixture.h"

namespace {

using namespace ds::test;
using ds::DType;
using ds::ExitCode;
using ds::LoraConfig;

namespace fs = std::filesystem;

constexpr const char* kQ = "model.layers.0.self_attn.q_a_proj";
constexpr const char* kO = "model.layers.0.self_attn.o_proj";

// Two modules of rank 2 with matching file and parameters.
void two_modules(AdapterFile& file, Parameters& parameters) {
  for (const char* module : {kQ, kO}) {
    parameters.add_lora(module, 3, 4, 2);
    file.set_ramp(kPrefix + module + ".lora_A.weight", {2, 3}, 0.5f);
    file.set_ramp(kPrefix + module + ".lora_B.weight", {4, 2}, -0.25f);
  }
}

std::string refusal(const AdapterFile& file, Parameters& parameters, const LoraConfig& lora = {}) {
  TempFolder folder;
  file.write(folder.path);
  const std::string text = error_of(
      ExitCode::kBadInput, [&] { ds::load_adapter(folder.path, lora, parameters.pointers); });
  // A refused file changes nothing.
  for (const ds::Parameter* parameter : parameters.pointers) {
    for (const float value : values(*parameter)) CHECK(value == 0.0f);
  }
  return text;
}

// Parameters as a model with these targets would have them.
void add_targets(Parameters& parameters, const std::vector<ds::LoraTarget>& targets, bool dora) {
  for (const ds::LoraTarget& target : targets) {
    parameters.add_lora(target.module.path, target.module.in, target.module.out, target.rank);
    if (dora) parameters.add(target.module.path + ".lora_magnitude_vector", {target.module.out});
  }
}

// Every golden adapter: loads with every value equal to the file's, and saves to the same bytes.
void round_trip(const fs::path& model_folder, const fs::path& adapter) {
  CAPTURE(adapter.string());
  const ds::ModelConfig model = ds::load_model_config(model_folder);
  const LoraConfig lora = ds::load_lora_config(adapter);
  const auto targets = ds::match_targets(lora, model);
  Parameters parameters;
  add_targets(parameters, targets, lora.use_dora);
  ds::load_adapter(adapter, lora, parameters.pointers);

  const auto file = ds::SafetensorsFile::open(adapter / "adapter_model.safetensors");
  REQUIRE(file.tensors().size() == parameters.pointers.size());
  for (const ds::Parameter* parameter : parameters.pointers) {
    const auto* info = file.find(kPrefix + parameter->name);
    REQUIRE(info != nullptr);
    REQUIRE(info->shape == parameter->value.shape());
    CHECK(std::memcmp(file.data(*info), parameter->value.data(),
                      static_cast<std::size_t>(parameter->value.bytes())) == 0);
  }
  TempFolder folder;
  ds::save_adapter(folder.path / "new" / "adapter", lora, targets, model, parameters.pointers);
  const fs::path saved = folder.path / "new" / "adapter";
  CHECK(file_bytes(saved / "adapter_model.safetensors") ==
        file_bytes(adapter / "adapter_model.safetensors"));
  CHECK(fs::file_size(saved / "adapter_config.json") > 0);
}

TEST_CASE("every golden adapter loads exactly and saves to peft's bytes") {
  const auto shared = shared_dir();
  if (shared.empty()) {
    MESSAGE("skipped: no shared folder");
    return;
  }
  int seen = 0;
  for (const auto& model : fs::directory_iterator(shared / "goldens")) {
    const fs::path checkpoint = model.path() / model.path().filename();
    if (!fs::exists(model.path() / "lora")) continue;
    for (const auto& variant : fs::directory_iterator(model.path() / "lora")) {
      round_trip(checkpoint, variant.path());
      ++seen;
    }
  }
  for (const char* method : {"lora", "loraplus"}) {
    round_trip(shared / "goldens" / "tiny-v3" / "tiny-v3",
               shared / "goldens" / "tiny-v3" / "train" / method / "final");
    ++seen;
  }
  const fs::path nano = shared / "models" / "nano-v3";
  if (fs::exists(nano / "tasks" / "adapters")) {
    for (const auto& adapter : fs::directory_iterator(nano / "tasks" / "adapters")) {
      round_trip(nano, adapter.path());
      ++seen;
    }
  }
  MESSAGE("adapters: " << seen);
  CHECK(seen >= 10);
}

TEST_CASE("dtypes of the file: F32, BF16 and F16, mixed") {
  Parameters parameters;
  AdapterFile file;
  two_modules(file, parameters);
  file.set_bits(kPrefix + kQ + ".lora_A.weight", DType::kBF16, {2, 3},
                {0x3f80, 0x4000, 0xbf80, 0x3e80, 0x0001, 0x4049});
  file.set_bits(kPrefix + kQ + ".lora_B.weight", DType::kF16, {4, 2},
                {0x3c00, 0x4000, 0xbc00, 0x3400, 0x0001, 0x7bff, 0x8000, 0x0400});
  TempFolder folder;
  file.write(folder.path);
  ds::load_adapter(folder.path, LoraConfig{}, parameters.pointers);
  CHECK(values(parameters.at(std::string(kQ) + ".lora_A.weight")) ==
        std::vector<float>{1.0f, 2.0f, -1.0f, 0.25f, std::bit_cast<float>(0x00010000), 3.140625f});
  CHECK(values(parameters.at(std::string(kQ) + ".lora_B.weight")) ==
        std::vector<float>{1.0f, 2.0f, -1.0f, 0.25f, 0x1p-24f, 65504.0f, -0.0f, 0x1p-14f});
  CHECK(values(parameters.at(std::string(kO) + ".lora_A.weight")) ==
        std::vector<float>{0.5f, 1.0f, 1.5f, 2.0f, 2.5f, 3.0f});
}

TEST_CASE("F64 parameters take the values") {
  Parameters parameters;
  AdapterFile file;
  two_modules(file, parameters);
  for (ds::Parameter* p : parameters.pointers) p->value = ds::Tensor(DType::kF64, p->value.shape());
  TempFolder folder;
  file.write(folder.path);
  ds::load_adapter(folder.path, LoraConfig{}, parameters.pointers);
  CHECK(parameters.pointers[1]->value.as<double>()[7] == -2.0);
}

TEST_CASE("embedding A is transposed and peft's copy of the base weight is skipped") {
  Parameters parameters;
  parameters.add("model.embed_tokens.lora_embedding_A", {5, 2});
  parameters.add("model.embed_tokens.lora_embedding_B", {3, 2});
  AdapterFile file;
  const std::string module = kPrefix + "model.embed_tokens";
  file.set_ramp(module + ".lora_embedding_A", {2, 5});
  file.set_ramp(module + ".lora_embedding_B", {3, 2});
  file.set_ramp(module + ".base_layer.weight", {5, 3});
  TempFolder folder;
  file.write(folder.path);
  ds::load_adapter(folder.path, LoraConfig{}, parameters.pointers);
  CHECK(values(*parameters.pointers[0]) == std::vector<float>{1, 6, 2, 7, 3, 8, 4, 9, 5, 10});
  CHECK(values(*parameters.pointers[1]) == std::vector<float>{1, 2, 3, 4, 5, 6});

  SUBCASE("a resized vocabulary is refused") {
    for (ds::Parameter* p : parameters.pointers) p->value.fill_zero();
    file.set_ramp(module + ".base_layer.weight", {6, 3});
    const auto text = refusal(file, parameters);
    CHECK(has(text, "base_layer.weight' has shape [6, 3]"));
    CHECK(has(text, "[5, 3]"));
  }
  SUBCASE("a trained embedding weight is modules_to_save") {
    for (ds::Parameter* p : parameters.pointers) p->value.fill_zero();
    file.rename(module + ".base_layer.weight", module + ".weight");
    CHECK(has(refusal(file, parameters), "modules_to_save"));
  }
}

TEST_CASE("an embedding adapter is written transposed") {
  const auto shared = shared_dir();
  if (shared.empty()) {
    MESSAGE("skipped: no shared folder");
    return;
  }
  const auto model = ds::load_model_config(shared / "goldens" / "tiny-v3" / "tiny-v3");
  LoraConfig lora;
  lora.r = 2;
  lora.target_modules = {"embed_tokens"};
  const auto targets = ds::match_targets(lora, model);
  Parameters parameters;
  auto& a = parameters.add("model.embed_tokens.lora_embedding_A", {5, 2});
  auto& b = parameters.add("model.embed_tokens.lora_embedding_B", {3, 2});
  for (std::int64_t i = 0; i < 10; ++i) a.value.as<float>()[i] = static_cast<float>(i);
  TempFolder folder;
  ds::save_adapter(folder.path, lora, targets, model, parameters.pointers);
  const auto file = ds::SafetensorsFile::open(folder.path / "adapter_model.safetensors");
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
  const auto* info = file.find(kPrefix + a.name);
  REQUIRE(info != nullptr);
  CHECK(info->shape == std::vector<std::int64_t>{2, 5});
  const auto before = values(a);
  a.value.fill_zero();
  ds::load_adapter(folder.path, lora, parameters.pointers);
  CHECK(values(a) == before);
  CHECK(values(b) == std::vector<float>(6, 0.0f));

  SUBCASE("what is not finite is not saved") {
    TempFolder other;
    b.value.as<float>()[4] = std::numeric_limits<float>::infinity();
    const auto text = error_of(ExitCode::kFindings, [&] {
      ds::save_adapter(other.path / "x", lora, targets, model, parameters.pointers);
    });
    CHECK(has(text, "model.embed_tokens.lora_embedding_B"));
    CHECK_FALSE(fs::exists(other.path / "x"));
  }
}

TEST_CASE("no key matches: the prefix problem is named") {
  Parameters parameters;
  AdapterFile file;
  two_modules(file, parameters);
  const std::string model = kPrefix + "model.";
  const auto replace_prefix = [&](const std::string& prefix) {
    file.rename_all([&](const std::string& name) { return prefix + name.substr(model.size()); });
    return refusal(file, parameters);
  };
  SUBCASE("one model. missing") {
    const auto text = replace_prefix("base_model.model.");
    CHECK(has(text, "0 of 4 keys"));
    CHECK(has(text, "one 'model.' is missing"));
    CHECK(has(text, "'base_model.model.model.' is needed"));
  }
  SUBCASE("model. doubled") {
    CHECK(has(replace_prefix("base_model.model.model.model."), "'model.' is doubled"));
  }
  SUBCASE("base_model.model. missing") {
    CHECK(has(replace_prefix("model."), "'base_model.model.' is missing"));
  }
  SUBCASE("no prefix at all") { CHECK(has(replace_prefix(""), "'base_model.model.' is missing")); }
  SUBCASE("base_model.model. doubled") {
    CHECK(has(replace_prefix("base_model.model.base_model.model.model."),
              "'base_model.model.' is doubled"));
  }
  SUBCASE("a language model inside another one") {
    CHECK(has(replace_prefix("base_model.model.language_model.model."),
              "'language_model.' is too much"));
  }
  SUBCASE("an adapter name in the keys") {
    file.rename_all(
        [](std::string name) { return name.substr(0, name.size() - 6) + "default.weight"; });
    CHECK(has(refusal(file, parameters), "adapter name"));
  }
  SUBCASE("another family: the nearest name is shown") {
    file.rename_all([](std::string name) {
      const auto at = name.find("_a_proj");
      return at == std::string::npos ? name.replace(name.find("o_proj"), 6, "p_proj")
                                     : name.erase(at, 2);
    });
    const auto text = refusal(file, parameters);
    CHECK(has(text, "0 of 4 keys"));
    CHECK(has(text, "the nearest needed is"));
  }
  SUBCASE("an empty file") { CHECK(has(refusal(AdapterFile(), parameters), "no adapter tensor")); }
}

TEST_CASE("some keys match nothing: they are listed") {
  Parameters parameters;
  AdapterFile file;
  two_modules(file, parameters);
  file.set_ramp(kPrefix + "model.layers.9.self_attn.o_proj.lora_A.weight", {2, 3});
  file.set_ramp(kPrefix + "model.layers.9.self_attn.o_proj.lora_B.weight", {4, 2});
  const auto text = refusal(file, parameters);
  CHECK(has(text, "2 of 6 keys match no adapter module"));
  CHECK(has(text, "layers.9.self_attn.o_proj.lora_A.weight"));
  CHECK(has(text, "layers.9.self_attn.o_proj.lora_B.weight"));
}

TEST_CASE("what an adapter file may lack or hold wrongly") {
  Parameters parameters;
  AdapterFile file;
  two_modules(file, parameters);
  const std::string a = kPrefix + kQ + ".lora_A.weight";
  const std::string b = kPrefix + kQ + ".lora_B.weight";
  SUBCASE("A without B") {
    file.erase(b);
    CHECK(has(refusal(file, parameters), "has '" + a + "' but not '" + b + "'"));
  }
  SUBCASE("B without A") {
    file.erase(a);
    CHECK(has(refusal(file, parameters), "has '" + b + "' but not '" + a + "'"));
  }
  SUBCASE("a whole module missing") {
    file.erase(a);
    file.erase(b);
    const auto text = refusal(file, parameters);
    CHECK(has(text, "lacks 2 of 4 adapter tensors"));
    CHECK(has(text, a));
  }
  SUBCASE("another rank") {
    file.set_ramp(a, {3, 3});
    const auto text = refusal(file, parameters);
    CHECK(has(text, "'" + a + "' has shape [3, 3], needed is [2, 3]"));
    CHECK(has(text, "rank 3 in the file, 2"));
  }
  SUBCASE("another width") {
    file.set_ramp(a, {2, 7});
    const auto text = refusal(file, parameters);
    CHECK(has(text, "'" + a + "' has shape [2, 7], needed is [2, 3]"));
    CHECK(text.find("rank 2 in the file") == std::string::npos);
  }
  SUBCASE("transposed B") {
    file.set_ramp(b, {2, 4});
    CHECK(has(refusal(file, parameters), "has shape [2, 4], needed is [4, 2]"));
  }
  SUBCASE("flat A") {
    file.set_ramp(a, {6});
    CHECK(has(refusal(file, parameters), "has shape [6], needed is [2, 3]"));
  }
  SUBCASE("NaN") {
    file.set(a, {2, 3}, {1, 2, 3, 4, std::numeric_limits<float>::quiet_NaN(), 6});
    const auto text = refusal(file, parameters);
    CHECK(has(text, a));
    CHECK(has(text, "nan at element 4"));
  }
  SUBCASE("infinity in BF16") {
    file.set_bits(b, DType::kBF16, {4, 2}, {0, 0, 0, 0, 0, 0, 0xff80, 0});
    CHECK(has(refusal(file, parameters), "-inf at element 6"));
  }
  SUBCASE("an integer tensor") {
    file.set_bits(b, DType::kI16, {4, 2}, {0, 0, 0, 0, 0, 0, 0, 0});
    CHECK(has(refusal(file, parameters), "is I16, needed is F32, BF16 or F16"));
  }
  SUBCASE("a whole head") {
    file.set_ramp(kPrefix + "lm_head.weight", {2, 2});
    const auto text = refusal(file, parameters);
    CHECK(has(text, "base_model.model.lm_head.weight"));
    CHECK(has(text, "modules_to_save"));
  }
  SUBCASE("old spelling of a saved module") {
    file.set_ramp(kPrefix + "lm_head.modules_to_save.default.weight", {2, 2});
    CHECK(has(refusal(file, parameters), "modules_to_save"));
  }
  SUBCASE("a bias of the adapter") {
    file.set_ramp(kPrefix + kQ + ".lora_B.bias", {4});
    CHECK(has(refusal(file, parameters), "lora_bias"));
  }
  SUBCASE("a bias of the model") {
    file.set_ramp(kPrefix + kQ + ".bias", {4});
    CHECK(has(refusal(file, parameters), "bias other than"));
  }
  SUBCASE("trained token rows") {
    file.set_ramp(kPrefix + "model.embed_tokens.token_adapter.trainable_tokens_delta", {4, 2});
    CHECK(has(refusal(file, parameters), "trainable_token_indices"));
  }
  SUBCASE("DoRA magnitudes without use_dora") {
    file.set_ramp(kPrefix + kQ + ".lora_magnitude_vector", {4});
    CHECK(has(refusal(file, parameters), "use_dora is false"));
  }
  SUBCASE("DoRA without magnitudes") {
    parameters.add(std::string(kQ) + ".lora_magnitude_vector", {4});
    LoraConfig lora;
    lora.use_dora = true;
    CHECK(has(refusal(file, parameters, lora), "lora_magnitude_vector"));
  }
}

TEST_CASE("folders without the tensor file") {
  Parameters parameters;
  AdapterFile file;
  two_modules(file, parameters);
  TempFolder folder;
  const auto load = [&] { ds::load_adapter(folder.path, LoraConfig{}, parameters.pointers); };
  CHECK(has(error_of(ExitCode::kBadInput, load), "has no adapter_model.safetensors"));
  SUBCASE("the older pickle is named and not opened") {
    std::ofstream(folder.path / "adapter_model.bin") << "x";
    const auto text = error_of(ExitCode::kBadInput, load);
    CHECK(has(text, "adapter_model.bin is a pickle"));
  }
  SUBCASE("a named adapter lies one folder deeper") {
    fs::create_directory(folder.path / "mine");
    file.write(folder.path / "mine");
    CHECK(has(error_of(ExitCode::kBadInput, load), (folder.path / "mine").string()));
  }
  SUBCASE("a truncated file") {
    file.write(folder.path);
    fs::resize_file(folder.path / "adapter_model.safetensors", 300);
    CHECK(has(error_of(ExitCode::kBadInput, load), "adapter_model.safetensors"));
  }
}

}  // namespace
