// A small trained state and folder helpers for the checkpoint tests.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/train/checkpoint_state.h"
#include "tests/support/paths.h"

namespace ds::test {

namespace fs = std::filesystem;

// An optimizer over four parameters, the third of which was never updated.
class TrainedState {
 public:
  explicit TrainedState(std::int64_t extent = 8) {
    for (int i = 0; i < 4; ++i) {
      Parameter& parameter = storage_.emplace_back();
      parameter.name = "model.layers." + std::to_string(i) + ".q_a_proj.lora_A.weight";
      parameter.value = Tensor(DType::kF32, {2, extent});
      pointers_.push_back(&parameter);
    }
    optimizer_ = std::make_unique<Optimizer>(OptimizerConfig{}, pointers_);
  }
  // Values, moments and counts after `step` updates.
  void set(std::int64_t step) {
    for (std::size_t i = 0; i < storage_.size(); ++i) {
      fill(storage_[i].value, static_cast<float>(step) + 0.25f * static_cast<float>(i));
      Optimizer::State& state = optimizer_->states()[i];
      state = Optimizer::State();
      if (i == 2) continue;
      state.exp_avg = Tensor(DType::kF32, storage_[i].value.shape());
      state.exp_avg_sq = Tensor(DType::kF32, storage_[i].value.shape());
      fill(state.exp_avg, 1e-3f * static_cast<float>(step));
      fill(state.exp_avg_sq, 1e-6f * static_cast<float>(step) + static_cast<float>(i));
      state.step = step - static_cast<std::int64_t>(i % 2);
      if (state.step == 0) state = Optimizer::State();
    }
  }
  Optimizer& optimizer() { return *optimizer_; }
  const std::vector<Parameter*>& parameters() const { return pointers_; }
  std::deque<Parameter>& storage() { return storage_; }
  // What save_checkpoint calls.
  auto writer() {
    return [this](const fs::path& folder) {
      std::string bytes;
      for (const Parameter& p : storage_) {
        bytes.append(reinterpret_cast<const char*>(p.value.data()),
                     static_cast<std::size_t>(p.value.bytes()));
      }
      write_file(folder / "adapter_model.safetensors", bytes);
      write_file(folder / "adapter_config.json", "{}");
    };
  }
  // All moments and counts as bytes.
  std::string state_bytes() const {
    std::string bytes;
    for (const Optimizer::State& state : optimizer_->states()) {
      bytes += std::to_string(state.step) + "|";
      for (const Tensor* tensor : {&state.exp_avg, &state.exp_avg_sq}) {
        if (!*tensor) continue;
        bytes.append(static_cast<const char*>(tensor->data()),
                     static_cast<std::size_t>(tensor->bytes()));
      }
    }
    return bytes;
  }

 private:
  static void fill(Tensor& tensor, float base) {
    for (std::int64_t i = 0; i < tensor.size(); ++i) {
      tensor.as<float>()[i] = base * (1.0f + 0.01f * static_cast<float>(i));
    }
  }
  std::deque<Parameter> storage_;
  std::vector<Parameter*> pointers_;
  std::unique_ptr<Optimizer> optimizer_;
};

inline RunIdentity identity() {
  RunIdentity identity;
  identity.model_digest = std::string(64, 'a');
  identity.dataset_digest = std::string(64, 'b');
  identity.settings = {{"learning_rate", "0.0001"}, {"seed", "42"}, {"threads", "2"}};
  return identity;
}

inline RunPosition position(std::int64_t step) {
  RunPosition position;
  position.step = step;
  position.total_steps = 1000;
  position.stage = 2;
  position.epoch = 3;
  position.row = 7 * step;
  position.loss_ema = 1.0 / 3.0 + static_cast<double>(step);
  return position;
}

// A folder that goes away with the test.
struct TempFolder {
  fs::path path = make_temp_dir("checkpoint");
  TempFolder() = default;
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

inline fs::path save(const fs::path& output, TrainedState& state, std::int64_t step,
                     std::int64_t keep = 0) {
  state.set(step);
  return save_checkpoint(output, position(step), identity(), state.optimizer(), state.writer(),
                         keep);
}

inline std::string file_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in.good());
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void overwrite(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// Names in a folder, sorted.
inline std::vector<std::string> names(const fs::path& folder) {
  std::vector<std::string> result;
  for (const auto& entry : fs::directory_iterator(folder)) {
    result.push_back(entry.path().filename().string());
  }
  std::sort(result.begin(), result.end());
  return result;
}

// The message of the error that `f` throws; checks its code.
template <class F>
std::string error_of(ExitCode code, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  FAIL_CHECK("no error was thrown");
  return "";
}

inline bool has(const std::string& text, const std::string& part) {
  const bool found = text.find(part) != std::string::npos;
  if (!found) MESSAGE("'" << part << "' is not in: " << text);
  return found;
}

inline std::string refusal(const fs::path& folder, const RunIdentity& run) {
  TrainedState state;
  state.set(99);
  const std::string before = state.state_bytes();
  const std::string text =
      error_of(ExitCode::kBadInput, [&] { load_checkpoint(folder, run, state.optimizer()); });
  CHECK(state.state_bytes() == before);
  return text;
}

}  // namespace ds::test
