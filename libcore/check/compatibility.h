// Whether an input can go where it is meant to go: another generation, a serving or training stack,
// given hardware, this machine. Each question is a row; where the answer was asked for, what is
// wrong is a finding as well (docs/compatibility.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/check/finding.h"
#include "libcore/check/input_facts.h"
#include "libcore/config/hardware.h"

namespace ds::check {

// kNeeds: works once something is done beside the input (a flag, a version, a device).
// kRefuses: the input itself is not taken, or not taken as it is meant.
enum class Verdict { kOk, kNeeds, kRefuses };
std::string_view verdict_name(Verdict verdict);  // "ok", "needs", "refuses"

struct CompatibilityRow {
  std::string section;      // "migration", "target", "hardware", "machine"
  std::string subject;      // "v3 to v3.1", "vllm", "8xH100-80G", "this machine"
  std::string requirement;  // "scale format"
  Verdict verdict = Verdict::kOk;
  std::string detail;  // what was found, and what follows
  std::string action;  // what to do; empty for kOk
  std::string source;  // where the fact comes from
  std::string rule;    // of its finding, by name; empty: a row alone
  std::string file;    // of the finding, and its place in it
  std::string tensor = {};
  std::string key = {};
  std::int64_t line = 0;
};
using CompatibilityRows = std::vector<CompatibilityRow>;

// Rows that have a rule and are not kOk become findings. `asked` false: one note of `summary_rule`
// for each subject that has such rows, with their requirements.
void add_findings(const CompatibilityRows& rows, bool asked, std::string_view summary_rule,
                  Findings& findings);

// The stacks, in the order of the tables.
enum class Stack { kTransformers, kPeft, kVllm, kSglang, kLlamaCpp, kInference };
inline constexpr int kStacks = 6;
std::string_view stack_name(Stack stack);  // "transformers", ..., "llama.cpp", ...
std::optional<Stack> parse_stack(std::string_view name);

// What `stack` makes of the input; no row where nothing is known (a dataset). `fp8_device`: the
// hardware that is meant has FP8 arithmetic (absent: not known).
CompatibilityRows check_stack(const InputFacts& input, Stack stack,
                              std::optional<bool> fp8_device = std::nullopt);

// From the form of V3 (or R1, which has its think tokens) to that of V3.1.
enum class Generation { kV3, kR1, kV31 };
std::string_view generation_name(Generation generation);
std::optional<Generation> parse_generation(std::string_view name);
// A checkpoint, tokenizer or adapter. `from` is kV3 or kR1.
CompatibilityRows check_migration(const InputFacts& input, Generation from);
// A dataset, row by row; memory does not grow with it. Ids are those of DeepSeek-V3's tokenizer.
// Throws Error(kIo), Error(kInterrupted).
CompatibilityRows check_dataset_migration(const std::filesystem::path& path, Generation from);

// What is asked of the hardware.
inline constexpr std::int64_t kDefaultContext = 4096;
struct Workload {
  // Tokens of a sequence, at most 2^24; 0: kDefaultContext, or what the model has where that is
  // less.
  std::int64_t context = 0;
  std::int64_t batch = 1;  // sequences at the same time, at most 2^16
};
struct TensorParallel {
  std::int64_t degree = 1;
  bool fits = true;           // heads and widths divide, blocks stay whole
  bool experts_whole = true;  // routed experts may be cut as well
  std::string tensor;         // the first one that does not, and why
  std::string reason;
};
struct HardwareFit {
  std::uint64_t weights = 0;        // bytes of all weights, as they are
  std::uint64_t weights_bf16 = 0;   // the same in BF16
  Workload workload;                // the context as it was taken
  std::uint64_t cache = 0;          // bytes of the cache of the workload
  std::uint64_t usable = 0;         // bytes of one GPU that engines fill
  std::uint64_t needed = 0;         // bytes of one GPU that are needed
  std::int64_t smallest_count = 0;  // GPUs of this kind that fit; 0: no number does
  bool fp8 = false;                 // the weights are FP8
  std::vector<TensorParallel> degrees;
  CompatibilityRows rows;
};
// Share of a GPU's memory that serving engines fill (vLLM's gpu_memory_utilization).
inline constexpr double kUsableMemory = 0.9;
// `input` is a checkpoint, a GGUF model or inference shards, with a config. Of a checkpoint the
// weights are divided over all GPUs, the latent cache is held by each (reference/cost-model.md
// section 4). Of a GGUF model both are divided, as llama.cpp puts layers on GPUs, and there are no
// degrees. Of inference shards a GPU has the largest of them, and `smallest_count` is their number.
HardwareFit check_hardware(const InputFacts& input, const Hardware& hardware,
                           const Workload& workload);
// Whether tensor parallelism of this degree can cut the model. `fp8`: cuts must fall on borders of
// 128.
TensorParallel tensor_parallel_degree(const ModelConfig& config, bool fp8, std::int64_t degree);
// Degrees 1, 2, 4, ... up to `largest`.
std::vector<TensorParallel> tensor_parallel_degrees(const ModelConfig& config, bool fp8,
                                                    std::int64_t largest);
// Bytes of the latent cache a token: (kv_lora_rank + qk_rope_head_dim) * 2 * layers.
std::int64_t latent_cache_bytes(const ModelConfig& config);
// The same where kv_b is in one piece: keys and values of every head.
std::int64_t whole_cache_bytes(const ModelConfig& config);

}  // namespace ds::check
