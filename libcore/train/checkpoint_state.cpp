#include "libcore/train/checkpoint_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/hash.h"
#include "libcore/base/json.h"
#include "libcore/base/utf8.h"
#include "libcore/io/safetensors.h"
#include "libcore/io/safetensors_header.h"
#include "libcore/train/checkpoint_folder.h"

namespace ds {

namespace fs = std::filesystem;

namespace {

constexpr const char* kSchema = "deepseek/checkpoint-state/1";
constexpr const char* kStateFile = "state.json";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kDigest = "digest";
constexpr const char* kSteps = "step";
constexpr std::size_t kListed = 5;

[[noreturn]] void refuse(const fs::path& path, const std::string& text, const std::string& hint) {
  throw Error(ExitCode::kBadInput, path.string() + ": " + text, hint);
}

constexpr const char* kDamagedHint =
    "the checkpoint is damaged: resume from an earlier checkpoint-N of the same run";

// Digest of a state document without its own digest. nlohmann sorts keys and prints doubles so that
// they read back exactly, so the text is the same before writing and after reading.
std::string document_digest(nlohmann::json document) {
  document.erase(kDigest);
  return sha256(document.dump());
}

bool all_finite(const Tensor& tensor) {
  const auto finite = [&](const auto* data) {
    bool result = true;
    for (std::int64_t i = 0; i < tensor.size(); ++i) result = result && std::isfinite(data[i]);
    return result;
  };
  return tensor.dtype() == DType::kF64 ? finite(tensor.as<double>()) : finite(tensor.as<float>());
}

// exp_avg.NAME and exp_avg_sq.NAME of every parameter that was ever updated, and "step": I64 counts
// in the optimizer's parameter order.
void write_optimizer(const fs::path& path, const Optimizer& optimizer) {
  std::vector<TensorToWrite> tensors;
  std::vector<std::int64_t> steps;
  for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
    const Parameter& parameter = *optimizer.parameters()[i];
    const Optimizer::State& state = optimizer.states()[i];
    steps.push_back(state.step);
    if (state.step == 0) continue;
    for (const auto& [prefix, tensor] :
         {std::pair{"exp_avg.", &state.exp_avg}, std::pair{"exp_avg_sq.", &state.exp_avg_sq}}) {
      if (!all_finite(*tensor)) {
        throw Error(
            ExitCode::kFindings,
            fmt::format("optimizer state '{}{}' holds NaN or infinity, so no checkpoint was "
                        "saved",
                        prefix, parameter.name),
            "training has diverged: go on from the last checkpoint with a lower learning "
            "rate");
      }
      tensors.push_back(
          {prefix + parameter.name, tensor->dtype(), tensor->shape(), tensor->data()});
    }
  }
  tensors.push_back({kSteps, DType::kI64, {static_cast<std::int64_t>(steps.size())}, steps.data()});
  write_safetensors(path, std::move(tensors), {});
}

// Reads what write_optimizer wrote; every parameter's state is checked before any is replaced.
void read_optimizer(const fs::path& path, std::int64_t finished_steps, Optimizer& optimizer) {
  const char* hint = "resume with the targets, rank and model that the checkpoint was made with";
  const SafetensorsFile file = SafetensorsFile::open(path);
  const auto count = static_cast<std::int64_t>(optimizer.parameters().size());
  const TensorInfo* steps = file.find(kSteps);
  if (steps == nullptr || steps->dtype != DType::kI64 || steps->shape.size() != 1) {
    refuse(path, "has no I64 tensor 'step' of rank 1", kDamagedHint);
  }
  if (steps->shape[0] != count) {
    refuse(
        path,
        fmt::format("has the state of {} parameters, this run trains {}", steps->shape[0], count),
        hint);
  }
  std::vector<Optimizer::State> states(static_cast<std::size_t>(count));
  std::size_t used = 1;
  for (std::size_t i = 0; i < states.size(); ++i) {
    const Parameter& parameter = *optimizer.parameters()[i];
    Optimizer::State& state = states[i];
    std::memcpy(&state.step, file.data(*steps) + i * sizeof(std::int64_t), sizeof(std::int64_t));
    if (state.step < 0 || state.step > finished_steps) {
      refuse(path,
             fmt::format("says that '{}' had {} updates, but the run had {}", parameter.name,
                         state.step, finished_steps),
             kDamagedHint);
    }
    if (state.step == 0) continue;
    for (const auto& [prefix, tensor] :
         {std::pair{"exp_avg.", &state.exp_avg}, std::pair{"exp_avg_sq.", &state.exp_avg_sq}}) {
      const std::string name = prefix + parameter.name;
      const TensorInfo* info = file.find(name);
      if (info == nullptr) refuse(path, fmt::format("has no tensor '{}'", name), hint);
      if (info->shape != parameter.value.shape() || info->dtype != parameter.value.dtype()) {
        refuse(path,
               fmt::format("tensor '{}' is {} {}, needed is {} {}", name,
                           kernels::dtype_name(info->dtype), shape_text(info->shape),
                           kernels::dtype_name(parameter.value.dtype()),
                           shape_text(parameter.value.shape())),
               hint);
      }
      *tensor = Tensor(info->dtype, info->shape.copy());
      std::memcpy(tensor->data(), file.data(*info), static_cast<std::size_t>(tensor->bytes()));
      if (!all_finite(*tensor)) {
        refuse(path, fmt::format("tensor '{}' holds NaN or infinity", name), kDamagedHint);
      }
      ++used;
    }
  }
  if (used != file.tensors().size()) {
    for (const TensorInfo& tensor : file.tensors()) {
      const std::size_t dot = tensor.name.find('.');
      const std::string name(dot == std::string::npos ? "" : tensor.name.substr(dot + 1));
      const bool known = tensor.name == kSteps ||
                         std::any_of(optimizer.parameters().begin(), optimizer.parameters().end(),
                                     [&](const Parameter* p) { return p->name == name; });
      if (!known)
        refuse(path, fmt::format("tensor '{}' belongs to no parameter", tensor.name), hint);
    }
    refuse(path, "holds moments of a parameter that was never updated", kDamagedHint);
  }
  optimizer.states() = std::move(states);
}

// A setting may hold a path with any bytes, JSON only valid UTF-8: what the file would hold.
std::string storable(const std::string& text) { return utf8_replace(text); }

nlohmann::json state_document(const fs::path& folder, const RunPosition& position,
                              const RunIdentity& identity) {
  nlohmann::json files = nlohmann::json::object();
  for (const std::string& name : list_files(folder)) {
    if (name == kStateFile) continue;
    files[name] = {{"bytes", fs::file_size(folder / name)}, {"sha256", sha256_file(folder / name)}};
  }
  nlohmann::json settings = nlohmann::json::object();
  for (const auto& [name, value] : identity.settings) settings[name] = storable(value);
  nlohmann::json document = {
      {"schema", kSchema},
      {"position",
       {{"step", position.step},
        {"total_steps", position.total_steps},
        {"stage", position.stage},
        {"epoch", position.epoch},
        {"row", position.row},
        {"loss_ema", position.loss_ema},
        {"importance", position.importance}}},
      {"model_digest", identity.model_digest},
      {"dataset_digest", identity.dataset_digest},
      {"settings", std::move(settings)},
      {"files", std::move(files)},
  };
  document[kDigest] = document_digest(document);
  return document;
}

// The document of a checkpoint, its own digest and the files' sizes verified, and their contents
// when `deep`.
nlohmann::json read_state(const fs::path& folder, bool deep) {
  const fs::path path = folder / kStateFile;
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    refuse(folder, fmt::format("{} is missing", kStateFile),
           "give a checkpoint-N folder that deepseek-finetune has written");
  }
  nlohmann::json document = parse_json_file(path);
  if (!document.is_object()) refuse(path, "is no JSON object", kDamagedHint);
  const JsonObject state(document, path.string());
  if (const std::string schema = state.string("schema"); schema != kSchema) {
    refuse(path, fmt::format("has schema '{}', needed is '{}'", schema, kSchema),
           "resume with the version of the program that wrote it");
  }
  if (state.string(kDigest) != document_digest(document)) {
    refuse(path, "was changed: its content does not have its own digest", kDamagedHint);
  }
  const JsonObject files = state.object("files");
  if (!files.has(kOptimizerFile)) {
    refuse(path, fmt::format("does not list {}", kOptimizerFile), kDamagedHint);
  }
  for (const auto& [name, unused] : files.value().items()) {
    const JsonObject entry = files.object(name);
    const fs::path relative(name);
    if (name.empty() || relative.is_absolute() || relative.lexically_normal() != relative ||
        *relative.begin() == "..") {
      refuse(path, fmt::format("lists '{}', which is no file inside the checkpoint", name),
             kDamagedHint);
    }
    const fs::path file = folder / relative;
    if (!fs::is_regular_file(file, error)) {
      refuse(file, "is missing from the checkpoint", kDamagedHint);
    }
    const auto bytes = static_cast<std::int64_t>(fs::file_size(file, error));
    const std::int64_t needed = entry.integer("bytes");
    if (error || bytes != needed) {
      refuse(file,
             fmt::format("was {}: it has {} bytes, the checkpoint was written with {}",
                         bytes < needed ? "truncated" : "changed", bytes, needed),
             kDamagedHint);
    }
    if (deep && sha256_file(file) != entry.string("sha256")) {
      refuse(file, "was changed: its SHA-256 is not the one it was written with", kDamagedHint);
    }
  }
  return document;
}

std::string quoted(const std::map<std::string, std::string>& settings, const std::string& name) {
  const auto found = settings.find(name);
  return found == settings.end() ? "not set" : "'" + storable(found->second) + "'";
}

void expect_same_run(const fs::path& path, const JsonObject& state, const RunIdentity& identity) {
  const std::string model = state.string("model_digest");
  if (model != identity.model_digest) {
    refuse(path,
           fmt::format("was made with another model (digest {}, this run's is {})", model,
                       identity.model_digest),
           "give the --model of the first run, or start anew with --adapter");
  }
  const std::string dataset = state.string("dataset_digest");
  if (dataset != identity.dataset_digest) {
    refuse(path,
           fmt::format("was made with another dataset (digest {}, this run's is {})", dataset,
                       identity.dataset_digest),
           "give the dataset of the first run, or start anew with --adapter");
  }
  std::map<std::string, std::string> settings;
  const JsonObject written = state.object("settings");
  for (const auto& [name, unused] : written.value().items()) settings[name] = written.string(name);
  std::vector<std::string> names;
  for (const auto& [name, unused] : settings) names.push_back(name);
  for (const auto& [name, unused] : identity.settings) names.push_back(name);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());

  std::string different;
  std::size_t count = 0;
  for (const std::string& name : names) {
    const std::string was = quoted(settings, name);
    const std::string is = quoted(identity.settings, name);
    if (was == is) continue;
    if (++count <= kListed) {
      different +=
          fmt::format("{}setting '{}' was {}, is {}", count == 1 ? "" : "; ", name, was, is);
    }
  }
  if (count > kListed) different += fmt::format(" and {} more", count - kListed);
  if (count > 0) {
    refuse(path, different,
           "resume with the settings of the first run, or start anew with --adapter");
  }
}

RunPosition read_position(const JsonObject& state) {
  const JsonObject json = state.object("position");
  RunPosition position;
  const auto integer = [&](const char* key, std::int64_t smallest) {
    const std::int64_t value = json.integer(key);
    if (value < smallest) {
      throw Error(
          ExitCode::kBadInput,
          fmt::format("{}: '{}' is {}, needed is at least {}", json.where(), key, value, smallest),
          kDamagedHint);
    }
    return value;
  };
  position.step = integer("step", 0);
  position.total_steps = integer("total_steps", 0);
  position.stage = integer("stage", 1);
  position.epoch = integer("epoch", 0);
  position.row = integer("row", 0);
  // JSON has no NaN: it was written as null.
  position.loss_ema =
      json.has("loss_ema") ? json.number("loss_ema") : std::numeric_limits<double>::quiet_NaN();
  if (json.has("importance")) {
    const nlohmann::json& values = json.value().at("importance");
    const bool numbers =
        values.is_array() &&
        std::all_of(values.begin(), values.end(), [](const auto& v) { return v.is_number(); });
    if (!numbers) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: 'importance' is no list of numbers", json.where()),
                  kDamagedHint);
    }
    position.importance = values.get<std::vector<double>>();
  }
  return position;
}

void delete_older(const fs::path& output, const fs::path& newest, std::int64_t keep) {
  std::int64_t kept = 1;
  for (const CheckpointFolder& checkpoint : list_checkpoints(output)) {
    if (checkpoint.path.filename() == newest.filename()) continue;
    // What is not whole by its sizes does not count, and may be something of the user's: left
    // alone. Hashing every old checkpoint at every save would cost more than the save.
    try {
      read_state(checkpoint.path, false);
    } catch (const Error&) {
      continue;
    }
    if (++kept > keep) delete_checkpoint(checkpoint);
  }
}

}  // namespace

fs::path save_checkpoint(const fs::path& output, const RunPosition& position,
                         const RunIdentity& identity, Optimizer& optimizer,
                         const std::function<void(const fs::path&)>& save_weights,
                         std::int64_t keep) {
  fs::path saved;
  try {
    CheckpointWriter writer(output, position.step);
    save_weights(writer.folder());
    write_optimizer(writer.folder() / kOptimizerFile, optimizer);
    const nlohmann::json document = state_document(writer.folder(), position, identity);
    write_file(writer.folder() / kStateFile, document.dump(2));
    saved = writer.commit();
    if (keep > 0) delete_older(output, saved, keep);
  } catch (const fs::filesystem_error& error) {
    throw Error(ExitCode::kIo, fmt::format("{}: the checkpoint of step {} could not be written: {}",
                                           output.string(), position.step, error.code().message()));
  }
  return saved;
}

fs::path find_latest_checkpoint(const fs::path& output, std::vector<std::string>& skipped) {
  for (const CheckpointFolder& checkpoint : list_checkpoints(output)) {
    try {
      read_state(checkpoint.path, true);
      return checkpoint.path;
    } catch (const Error& error) {
      skipped.push_back(fmt::format("{}: {}", checkpoint.path.filename().string(), error.what()));
    }
  }
  return {};
}

RunPosition load_checkpoint(const fs::path& folder, const RunIdentity& identity,
                            Optimizer& optimizer) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    refuse(folder, "is no checkpoint folder",
           "give a checkpoint-N folder, or 'latest' for the newest of the output folder");
  }
  const nlohmann::json document = read_state(folder, true);
  const fs::path path = folder / kStateFile;
  const JsonObject state(document, path.string());
  expect_same_run(path, state, identity);
  const RunPosition position = read_position(state);
  read_optimizer(folder / kOptimizerFile, position.step, optimizer);
  return position;
}

}  // namespace ds
