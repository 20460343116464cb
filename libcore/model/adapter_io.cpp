#include "libcore/model/adapter_io.h"

#include <fmt/format.h>

#include <cmath>
#include <set>
#include <system_error>
#include <utility>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/io/safetensors.h"
#include "libcore/model/adapter_sources.h"

namespace ds {

namespace {

constexpr const char* kTensorFile = "adapter_model.safetensors";
constexpr const char* kConfigFile = "adapter_config.json";

// Calls f(row, column, value) for every element of a rank <= 2 F32 or F64 tensor.
template <class F>
void for_each_value(const Tensor& tensor, F&& f) {
  const auto visit = [&](const auto* data) {
    const std::int64_t cols = tensor.shape().empty() ? 1 : tensor.shape().back();
    const std::int64_t rows = cols == 0 ? 0 : tensor.size() / cols;
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) f(i, j, data[i * cols + j]);
    }
  };
  if (tensor.dtype() == DType::kF64) {
    visit(tensor.as<double>());
  } else {
    visit(tensor.as<float>());
  }
}

void expect_finite(const Parameter& parameter) {
  bool finite = true;
  for_each_value(parameter.value, [&](std::int64_t, std::int64_t, auto value) {
    finite = finite && std::isfinite(static_cast<float>(value));
  });
  if (!finite) {
    throw Error(ExitCode::kFindings,
                fmt::format("adapter tensor '{}' holds NaN or infinity, so it was not saved",
                            parameter.name),
                "training has diverged: go on from the last checkpoint with a lower learning rate");
  }
}

// The tensor file of an adapter folder.
std::filesystem::path tensor_file(const std::filesystem::path& folder) {
  std::error_code error;
  const auto path = folder / kTensorFile;
  if (std::filesystem::exists(path, error)) return path;
  for (const char* old : {"adapter_model.bin", "adapter_model.pt"}) {
    if (std::filesystem::exists(folder / old, error)) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: {} is a pickle file, which is never opened here; needed is {}",
                              folder.string(), old, kTensorFile),
                  "convert it with the library that wrote it (save_pretrained with "
                  "safe_serialization=True)");
    }
  }
  // An adapter that is not named "default" lies one folder deeper.
  std::string hint = "give the folder that holds adapter_config.json and adapter_model.safetensors";
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code inner;
    if (std::filesystem::exists(it->path() / kTensorFile, inner)) {
      hint = fmt::format("did you mean {}?", it->path().string());
      break;
    }
  }
  throw Error(ExitCode::kBadInput, fmt::format("{}: has no {}", folder.string(), kTensorFile),
              hint);
}

}  // namespace

void save_adapter(const std::filesystem::path& folder, const LoraConfig& lora,
                  const std::vector<LoraTarget>& targets, const ModelConfig& model,
                  const std::vector<Parameter*>& parameters) {
  const std::string config = adapter_config_text(lora, targets, model);
  for (const Parameter* parameter : parameters) expect_finite(*parameter);

  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    throw Error(ExitCode::kIo,
                fmt::format("{}: cannot be created: {}", folder.string(), error.message()),
                "choose a folder in which you may write");
  }
  std::vector<TensorToWrite> tensors;
  std::vector<Tensor> converted;  // where the file's layout or dtype differs from memory
  tensors.reserve(parameters.size());
  converted.reserve(parameters.size());
  for (const Parameter* parameter : parameters) {
    TensorToWrite tensor;
    tensor.name = std::string(kAdapterPrefix) + parameter->name;
    tensor.shape = parameter->value.shape();
    tensor.data = parameter->value.data();
    const bool transposed = parameter->name.ends_with(".lora_embedding_A");
    if (transposed) std::swap(tensor.shape[0], tensor.shape[1]);
    if (transposed || parameter->value.dtype() != DType::kF32) {
      Tensor& copy = converted.emplace_back(DType::kF32, tensor.shape);
      float* out = copy.as<float>();
      const std::int64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back();
      for_each_value(parameter->value, [&](std::int64_t i, std::int64_t j, auto value) {
        out[transposed ? j * cols + i : i * cols + j] = static_cast<float>(value);
      });
      tensor.data = copy.data();
    }
    tensors.push_back(std::move(tensor));
  }
  // The tensors first: a folder with a configuration is then never without its tensors.
  write_safetensors(folder / kTensorFile, std::move(tensors), {{"format", "pt"}});
  write_file(folder / kConfigFile, config);
}

void load_adapter(const std::filesystem::path& folder, const LoraConfig& lora,
                  const std::vector<Parameter*>& parameters) {
  const SafetensorsFile file = SafetensorsFile::open(tensor_file(folder));
  const std::vector<AdapterSource> sources = match_adapter(file, lora, parameters);

  // Checked before the first value is stored, so that a refused file changes nothing.
  std::set<const TensorInfo*> used;
  for (const AdapterSource& source : sources) used.insert(source.tensor);
  for (const TensorInfo& tensor : file.tensors()) {
    if (!used.contains(&tensor)) continue;
    const std::byte* data = file.data(tensor);
    const std::int64_t count =
        static_cast<std::int64_t>(tensor.end - tensor.begin) / kernels::dtype_size(tensor.dtype);
    for (std::int64_t i = 0; i < count; ++i) {
      const float value = adapter_value(data, tensor.dtype, i);
      if (!std::isfinite(value)) {
        throw Error(ExitCode::kBadInput,
                    fmt::format("{}: tensor '{}' holds {} at element {}, needed are finite values",
                                file.path().string(), tensor.name, value, i),
                    "the adapter is broken: use an earlier checkpoint of its training");
      }
    }
  }
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    const AdapterSource& source = sources[p];
    const std::byte* data = file.data(*source.tensor);
    Tensor& target = parameters[p]->value;
    const auto fill = [&](auto* out) {
      const std::int64_t cols = target.shape().empty() ? 1 : target.shape().back();
      const std::int64_t rows = cols == 0 ? 0 : target.size() / cols;
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < cols; ++j) {
          *out++ = adapter_value(data, source.tensor->dtype,
                                 source.first + i * source.row_step + j * source.col_step);
        }
      }
    };
    if (target.dtype() == DType::kF64) {
      fill(target.as<double>());
    } else {
      fill(target.as<float>());
    }
  }
}

}  // namespace ds
