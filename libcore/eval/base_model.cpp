#include "libcore/eval/base_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/hash.h"
#include "libcore/config/lora_config.h"
#include "libcore/model/adapter_io.h"

namespace ds {

const Tokenizer& BaseModel::require_tokenizer() const {
  if (!tokenizer) {
    throw Error(ExitCode::kBadInput, tokenizer_problem,
                "put the model's tokenizer.json and tokenizer_config.json into the folder, or give "
                "a pre-tokenised dataset of input_ids and labels");
  }
  return *tokenizer;
}

BaseModel open_base_model(const std::string& name, const ModelSearchPaths& paths) {
  BaseModel base;
  base.name = name;
  base.folder = find_model(name, paths);
  base.config = load_model_config(base.folder);
  try {
    base.tokenizer = Tokenizer::load(base.folder);
  } catch (const Error& error) {
    base.tokenizer_problem = error.what();
  }
  return base;
}

ChatTemplate choose_template(const std::string& spelling, const BaseModel& base,
                             std::string& said) {
  if (spelling != "auto") {
    const auto kind = parse_chat_template(spelling);
    if (!kind) {
      throw Error(ExitCode::kUsage, fmt::format("--template {} is unknown", quote_text(spelling)),
                  "choose auto, v2, v3, v3.1 or r1");
    }
    return *kind;
  }
  const std::string text = base.tokenizer ? base.tokenizer->chat_template() : "";
  if (!text.empty()) {
    if (const auto kind = detect_chat_template(text)) return *kind;
  }
  const ChatTemplate fallback =
      base.config.model_class == ModelClass::kV2 ? ChatTemplate::kV2 : ChatTemplate::kV31;
  said = fmt::format("{}: the chat template is {}; using {} (--template chooses)",
                     base.folder.string(), text.empty() ? "missing" : "none of DeepSeek's own",
                     chat_template_name(fallback));
  return fallback;
}

std::unique_ptr<DeepSeekModel> load_with_adapter(const BaseModel& base,
                                                 const std::filesystem::path& adapter, DType dtype,
                                                 std::int64_t max_positions) {
  auto model =
      DeepSeekModel::load(base.config, Checkpoint::open(base.folder), dtype, max_positions);
  if (!adapter.empty()) {
    const LoraConfig lora = load_lora_config(adapter);
    // PEFT wrote what matched; names that match nothing here are no mistake of this run.
    model->add_lora(lora, match_targets(lora, base.config, Unmatched::kAllow));
    load_adapter(adapter, lora, model->parameters());
  }
  return model;
}

std::string model_digest(const std::filesystem::path& folder, const Checkpoint& checkpoint) {
  std::string text = read_file(folder / "config.json");
  for (const Checkpoint::Entry& entry : checkpoint.entries()) {
    text += fmt::format(
        "\n{} {} {} {} {}", entry.tensor->name, kernels::dtype_name(entry.tensor->dtype),
        entry.file->path().filename().string(), entry.tensor->begin, entry.tensor->end);
    for (const std::int64_t extent : entry.tensor->shape) text += fmt::format(" {}", extent);
  }
  return sha256(text);
}

std::string model_fingerprint(const std::filesystem::path& folder, const Checkpoint& checkpoint) {
  constexpr std::size_t kPlaces = 16, kBytes = 4096;
  Sha256 hash;
  hash.update(model_digest(folder, checkpoint));
  for (const auto& file : checkpoint.files()) {
    const MappedFile& mapped = file->file();
    for (std::size_t place = 0; place < kPlaces; ++place) {
      // The last place ends where the file does.
      const std::size_t end = mapped.size() * (place + 1) / kPlaces;
      const std::size_t size = std::min(kBytes, end);
      hash.update(mapped.data() + (end - size), size);
    }
  }
  return hash.finish();
}

}  // namespace ds
