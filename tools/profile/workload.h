// A model, an adapter and a batch: the step that is measured.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libcore/train/trainer.h"
#include "tools/profile/settings.h"

namespace ds::profile {

// What a run trains. kNone: the forward pass alone, without adapter.
enum class Method { kNone, kLora, kFull };

// `auto` is LoRA when a lora flag was given; else nothing for inference, all parameters for
// formulas, LoRA for a measured step.
Method resolve_method(const WorkSettings& settings, bool train, bool analytical);
// The adapters of --lora_r and --lora_target; empty but for kLora.
std::vector<LoraTarget> lora_targets(const WorkSettings& settings, Method method,
                                     const ModelConfig& config);
std::filesystem::path find_model_folder(const std::string& model);

// What is held in memory, in bytes, and the peaks of activations and temporaries by name.
struct MemoryUse {
  std::int64_t base = 0;  // the checkpoint, mapped
  std::int64_t adapters = 0, gradients = 0, optimizer = 0, activations = 0, workspace = 0;
  std::int64_t kernel_scratch = 0;
  std::map<std::string, std::size_t> activations_by_name;
  std::map<std::string, std::size_t> workspace_by_name;
};

class Workload {
 public:
  // Loads the model and makes one batch: `input` tokenised, or random tokens (fixed seed) where it
  // is empty. Throws Error(kResources) when the step would not fit into memory.
  Workload(const WorkSettings& settings, const std::filesystem::path& folder,
           const ModelConfig& config, const std::string& input, bool train, Device& device);
  // One update, or one forward pass with loss. Throws Error(kBadInput) when it is not finite.
  void step();

  std::int64_t tokens() const { return window_.tokens; }
  std::int64_t longest_row() const { return longest_; }
  std::int64_t trainable() const { return trainable_; }
  const std::vector<LoraTarget>& targets() const { return targets_; }
  Method method() const { return method_; }
  MemoryUse memory() const;

 private:
  void make_window(const WorkSettings& settings, const std::vector<std::int32_t>& ids);
  void check_memory() const;

  const ModelConfig& config_;
  Device& device_;
  bool train_;
  Method method_;
  Recompute recompute_;
  DType dtype_;
  LoraConfig lora_;
  std::vector<LoraTarget> targets_;
  std::int64_t trainable_ = 0;
  std::int64_t base_bytes_ = 0;
  std::int64_t longest_ = 0;
  std::int64_t steps_ = 0;
  Window window_;
  std::unique_ptr<DeepSeekModel> model_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Trainer> trainer_;
};

}  // namespace ds::profile
