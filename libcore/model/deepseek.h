// The model: embedding, blocks, head.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "libcore/base/page_stream.h"
#include "libcore/config/lora_config.h"
#include "libcore/config/model_config.h"
#include "libcore/data/example.h"
#include "libcore/model/weight_store.h"
#include "libcore/nn/block.h"
#include "libcore/nn/embedding.h"
#include "libcore/nn/head.h"

namespace ds {

// Which activations are kept for backward: everything, what is costly to make again, or one tensor
// a layer. The result has the same bits whichever.
enum class Recompute { kNone, kSelective, kFull };
// "none", "selective", "full". Throws Error(kUsage) for another name.
const char* recompute_name(Recompute recompute);
Recompute parse_recompute(const std::string& name);
// Whether kSelective drops the outputs of attention too: for rows of up to `length` tokens they
// cost no more FLOPs an element than a product over the hidden width.
bool drops_attention(const ModelConfig& config, std::int64_t length);

// Latent KV cache of one sequence: per layer [capacity, kv_lora + rope] (reference/model.md 3).
class Sequence {
 public:
  Sequence(const ModelConfig& config, std::int64_t capacity, DType dtype);
  std::int64_t length() const { return length_; }
  std::int64_t capacity() const { return capacity_; }
  // A copy that can go on for `more` tokens in another way.
  Sequence branch(std::int64_t more) const;
  // Forgets the tokens from `length` on, which is at most length().
  void shorten(std::int64_t length) { length_ = std::min(length_, length); }

 private:
  friend class DeepSeekModel;
  Sequence() = default;
  std::vector<Tensor> layers_;
  std::int64_t length_ = 0;
  std::int64_t capacity_ = 0;
};

// One micro-batch of an update.
struct MicroBatch {
  const TokenBatch* tokens = nullptr;
  std::uint64_t step_stream = 0;  // of its dropout masks (Exec::step_stream)
};

// A checkpoint ready to compute with. Weights are views of the mapped files; adapters and trained
// parameters are owned here.
class DeepSeekModel {
 public:
  // Loads FOLDER. `max_positions` is the longest sequence that will be used (sizes the rotary
  // table). Throws Error naming the tensor (missing, wrong shape or dtype); MTP tensors are left
  // alone.
  static std::unique_ptr<DeepSeekModel> load(const ModelConfig& config, Checkpoint checkpoint,
                                             DType compute, std::int64_t max_positions);
  DeepSeekModel(const DeepSeekModel&) = delete;
  DeepSeekModel& operator=(const DeepSeekModel&) = delete;

  const ModelConfig& config() const { return config_; }
  DType dtype() const { return compute_; }

  // Adds adapters (values zero: initialise with init_lora or load_adapter). Once per model.
  void add_lora(const LoraConfig& lora, const std::vector<LoraTarget>& targets);
  // Makes every weight but the router's selection bias a trained parameter, held in f32 memory.
  void make_all_trainable();
  // In a fixed order: checkpoint order of the modules, A, B, magnitude of each.
  const std::vector<Parameter*>& parameters() const { return parameters_; }
  // Allocates gradients of all parameters.
  void allocate_gradients();
  // DoRA magnitudes := row norms of the base weights (as peft initialises them).
  void reset_magnitudes();

  // Sum of the target losses of the batch; adds the gradients of sum * grad_scale to the trainable
  // parameters.
  LossSums forward_backward(Exec& exec, const TokenBatch& batch, double grad_scale,
                            Recompute recompute);
  // The same for several micro-batches in layer-major order: every layer meets all of them before
  // the next layer begins, so that the weights are walked over twice however many there are. Each
  // parameter's gradient is added to in the order of the batches, as by one call after another: the
  // bits are the same (but for trained tied embeddings, where the two uses of the table take turns
  // otherwise). sums[i] becomes the loss of batches[i]. When one is not finite there is no
  // backward.
  void forward_backward(Exec& exec, std::span<const MicroBatch> batches, double grad_scale,
                        Recompute recompute, std::span<LossSums> sums);
  // The same sum without gradients. `each`, when given, receives the loss of every target in the
  // batch's order.
  LossSums loss(Exec& exec, const TokenBatch& batch, std::vector<double>* each = nullptr);
  // logits[tokens, vocab] of every position (F32, or F64 for F64), chunk by chunk: `consume` is
  // called with the first row and the logits of some rows.
  void logits(Exec& exec, const TokenBatch& batch,
              const std::function<void(std::int64_t, const ConstView&)>& consume);

  // Feeds whole prompts, one segment a sequence (empty sequences), and gives the logits after each
  // prompt's last token: logits[sequences, vocab]; `exact` as in Head::logits.
  void prefill(Exec& exec, const TokenBatch& prompts, std::span<Sequence* const> sequences,
               const View& logits, bool exact = false);
  // Feeds one token to each sequence: logits[sequences, vocab].
  void decode(Exec& exec, std::span<const std::int32_t> tokens,
              std::span<Sequence* const> sequences, const View& logits);
  // The same, and gives the loss of targets[i] as the token that follows in sequence i.
  std::vector<double> decode_losses(Exec& exec, std::span<const std::int32_t> tokens,
                                    std::span<Sequence* const> sequences,
                                    std::span<const std::int32_t> targets);

  // From now on at most `window` bytes of the mapped base are kept in this process (one layer, if
  // that is more): layers come in ahead of use and go after it. Only where the base is walked over
  // layer by layer; decode() reads what it needs.
  void stream_weights(std::size_t window);

  // WeightStore::find_non_finite of the base.
  std::string find_non_finite_weight() const { return weights_.find_non_finite(); }
  // The base weight of a module (for tests and merging).
  const Linear* find_linear(const std::string& path) const;

 private:
  friend class TrainPass;
  DeepSeekModel(const ModelConfig& config, Checkpoint checkpoint, DType compute);
  void build(std::int64_t max_positions);
  void build_rope(std::int64_t max_positions);
  Linear make_linear(const std::string& path, std::int64_t in, std::int64_t out, bool bias);
  RmsNorm make_norm(const std::string& name, std::int64_t size, double eps);
  Mla make_attention(const std::string& prefix);
  Mlp make_mlp(const std::string& prefix, std::int64_t width);
  Moe make_moe(const std::string& prefix);
  void for_each_linear(const std::function<void(Linear&)>& f);
  // Lets go of pages that will not be needed soon, if the weight is mapped at all.
  void drop_mapped(const WeightRef& weight) const;
  void add_mapped(const WeightRef& weight, std::vector<PageRange>& part) const;
  // The mapped weights of every layer and, last, of the head.
  std::vector<std::vector<PageRange>> mapped_parts();
  std::span<const std::size_t> forward_order(Arena& arena) const;
  Parameter& add_parameter(std::string name, ParameterRole role, std::vector<std::int64_t> shape);
  Parameter& adopt_weight(const std::string& name, ParameterRole role,
                          const std::vector<std::int64_t>& shape);
  std::int64_t lowest_trainable_layer() const;
  // One token of each sequence through the blocks; the result lies in exec.scratch.
  View decode_blocks(Exec& exec, std::span<const std::int32_t> tokens,
                     std::span<Sequence* const> sequences);
  // Output of the last block, which computes the rows `last` wants, in exec.saved; nothing else is
  // kept. `see`, when given, is shown every layer's activations before they go.
  View forward_blocks(Exec& exec, const Rows& inner, const Rows& last, const ConstView& ids,
                      const std::function<void(std::size_t, const BlockSaved&)>& see);

  ModelConfig config_;
  DType compute_;
  WeightStore weights_;
  Embedding embedding_;
  std::vector<Block> blocks_;
  Head head_;
  std::map<std::string, Linear*> linears_;
  Tensor rope_cos_;
  Tensor rope_sin_;
  std::unique_ptr<PageStream> stream_;
  std::deque<Parameter> storage_;
  std::vector<Parameter*> parameters_;
  std::vector<Tensor> biases_;
  bool full_ = false;
};

}  // namespace ds
