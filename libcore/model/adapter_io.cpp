#include "libcore/model/adapter_io.h"

#include <fmt/format.h>

#include <cmath>
#include <system_error>
#include <utility>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/io/safetensors.h"
#include "libcore/model/adapter_sources.h"

namespace ds {

namespace {

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
  write_safetensors(folder / kAdapterTensorFile, std::move(tensors), {{"format", "pt"}});
  write_file(folder / kAdapterConfigFile, config);
}

void load_adapter(const std::filesystem::path& folder, const LoraConfig& lora,
                  const std::vector<Parameter*>& parameters) {
  const SafetensorsFile file = open_adapter_file(folder);
  std::vector<AdapterSlot> slots;
  for (const Parameter* parameter : parameters) {
    slots.push_back({parameter->name, parameter->value.shape()});
  }
  const std::vector<AdapterSource> sources = match_adapter(file, lora, slots);
  // Checked before the first value is stored, so that a refused file changes nothing.
  expect_finite(file, sources);
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
