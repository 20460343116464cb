// A model, an adapter and a batch: the step that is measured.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libcore/train/trainer.h"
#include "tools/profile/settings.h"

namespace ds::profile {

// kTrain: an update; kInfer: a forward pass with loss; kDecode: one token of each sequence, whose
// context lies in the latent cache.
enum class Mode { kTrain, kInfer, kDecode };
Mode parse_mode(const std::string& spelling);

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
  std::int64_t kv_cache = 0;
  std::map<std::string, std::size_t> activations_by_name;
  std::map<std::string, std::size_t> workspace_by_name;
};

class Workload {
 public:
  // Loads the model and makes one batch: `input` tokenised, or random tokens (fixed seed) where it
  // is empty. For kDecode all but the last token of one row go through the model and become the
  // context of every sequence. Throws Error(kResources) when it would not fit into memory.
  Workload(const WorkSettings& settings, const std::filesystem::path& folder,
           const ModelConfig& config, const std::string& input, Mode mode, Device& device);
  // Every step of kDecode is at the same context. Throws Error(kBadInput) when an update is not
  // finite.
  void step();

  std::int64_t tokens() const { return tokens_; }
  // For kDecode the positions a token attends to, itself included.
  std::int64_t longest_row() const { return longest_; }
  std::int64_t trainable() const { return trainable_; }
  const std::vector<LoraTarget>& targets() const { return targets_; }
  Method method() const { return method_; }
  MemoryUse memory() const;
  const Arena& activations() const { return trainer_ ? trainer_->saved() : saved_; }
  const Arena& workspace() const { return trainer_ ? trainer_->scratch() : scratch_; }
  // Bytes of the base's tensors by part, as CostRow names them.
  const std::map<std::string, std::int64_t>& part_bytes() const { return part_bytes_; }

 private:
  void make_window(const WorkSettings& settings, const std::vector<std::int32_t>& ids);
  void make_context(std::int64_t batch);
  void check_memory(std::int64_t batch) const;
  std::int64_t cache_bytes(std::int64_t batch) const;

  const ModelConfig& config_;
  Device& device_;
  Mode mode_;
  Method method_;
  Recompute recompute_;
  DType dtype_;
  LoraConfig lora_;
  std::vector<LoraTarget> targets_;
  std::int64_t trainable_ = 0;
  std::int64_t base_bytes_ = 0;
  std::map<std::string, std::int64_t> part_bytes_;
  std::int64_t longest_ = 0;
  std::int64_t tokens_ = 0;
  std::int64_t steps_ = 0;
  Window window_;
  std::unique_ptr<DeepSeekModel> model_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Trainer> trainer_;
  // Of kDecode.
  Arena saved_{"activations"};
  Arena scratch_{"workspace"};
  std::vector<Sequence> sequences_;
  std::vector<Sequence*> sequence_pointers_;
  std::vector<std::int32_t> next_;
  Tensor logits_;
};

}  // namespace ds::profile
