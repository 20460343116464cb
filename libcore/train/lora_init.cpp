#include "libcore/train/lora_init.h"

#include <fmt/format.h>

#include <cmath>

#include "libcore/base/error.h"
#include "libcore/base/rng.h"

namespace ds {

namespace {

// Sets element i to f(i), rounded to the tensor's dtype (F32 or F64).
template <class F>
void fill(Tensor& tensor, F&& f) {
  const std::int64_t size = tensor.size();
  if (tensor.dtype() == DType::kF64) {
    double* data = tensor.as<double>();
    for (std::int64_t i = 0; i < size; ++i) data[i] = f(static_cast<std::uint64_t>(i));
  } else {
    float* data = tensor.as<float>();
    for (std::int64_t i = 0; i < size; ++i) {
      data[i] = static_cast<float>(f(static_cast<std::uint64_t>(i)));
    }
  }
}

}  // namespace

void init_lora(const std::vector<Parameter*>& parameters, const std::string& init,
               std::uint64_t seed) {
  if (init != "true" && init != "gaussian" && init != "false") {
    throw Error(
        ExitCode::kUsage,
        fmt::format("LoRA initialisation '{}' is unknown, needed is true, gaussian or false",
                    init));
  }
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    Tensor& value = parameters[p]->value;
    const Rng rng(seed, mix_stream(static_cast<std::uint64_t>(RngStream::kLoraInit), p));
    // Draws are floats; scaling them in double rounds once.
    const auto uniform = [&](double bound) {
      fill(value, [&](std::uint64_t i) {
        return (2.0 * static_cast<double>(rng.uniform(i)) - 1.0) * bound;
      });
    };
    const auto normal = [&](double deviation) {
      fill(value, [&](std::uint64_t i) { return static_cast<double>(rng.normal(i)) * deviation; });
    };
    switch (parameters[p]->role) {
      case ParameterRole::kLoraA:  // [r, in]
        if (init == "gaussian") {
          normal(1.0 / static_cast<double>(value.shape()[0]));
        } else {
          uniform(1.0 / std::sqrt(static_cast<double>(value.shape()[1])));
        }
        break;
      case ParameterRole::kLoraB:  // [out, r]
        if (init == "false") {
          uniform(1.0 / std::sqrt(static_cast<double>(value.shape()[1])));
        } else {
          value.fill_zero();
        }
        break;
      case ParameterRole::kLoraEmbedding:  // A [vocab, r], B [hidden, r]
        if (init != "false" && parameters[p]->name.ends_with("lora_embedding_A")) {
          value.fill_zero();
        } else {
          normal(1.0);
        }
        break;
      case ParameterRole::kMagnitude:
      case ParameterRole::kWeight:
      case ParameterRole::kNorm:
        break;
    }
  }
}

}  // namespace ds
