// Whether a checkpoint runs on given GPUs.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "libcore/base/format.h"
#include "libcore/check/compatibility.h"

namespace ds::check {
namespace {

constexpr std::int64_t kDegreesShown = 32;
constexpr std::int64_t kLargestDegree = 64;  // beyond it no one cuts every tensor
constexpr int kFirstFp8 = 89;
constexpr int kBlackwell = 100;  // datacentre Blackwell: sm_100, sm_103
constexpr int kBeyondBlackwell = 120;

constexpr const char* kSmallerCache =
    "a smaller --context or --batch: the cache alone is too large";
constexpr const char* kLimits = "NVIDIA, CUDA compute capabilities";
constexpr const char* kCost = "arXiv 2412.19437 and 2505.09343, MLA cache";

// "1,369 GB (1275.0 GiB)": GPUs are sold by the one and report the other.
std::string gigabytes(std::uint64_t bytes) {
  constexpr double kGiga = 1e9;
  if (static_cast<double>(bytes) < kGiga) return format_bytes(bytes);
  const auto rounded = static_cast<std::int64_t>(std::llround(static_cast<double>(bytes) / kGiga));
  return fmt::format("{} GB ({})", format_count(rounded), format_bytes(bytes));
}

class HardwareCheck {
 public:
  HardwareCheck(const InputFacts& input, const Hardware& hardware, const Workload& workload)
      : in_(input),
        config_(*input.config),
        hardware_(hardware),
        gpu_(*hardware.gpu),
        workload_(workload) {
    if (workload_.context == 0) {
      workload_.context = std::min(kDefaultContext, config_.max_position_embeddings);
    }
    fit_.workload = workload_;
  }

  HardwareFit run() {
    sizes();
    arithmetic();
    memory();
    context();
    if (shards()) {
      ranks();
    } else if (!gguf()) {
      tensor_parallel();
      expert_parallel();
    }
    return std::move(fit_);
  }

 private:
  CompatibilityRow& add(const char* requirement, Verdict verdict, const std::string& detail,
                        const std::string& action, const char* source, const char* rule = "") {
    fit_.rows.push_back({.section = "hardware",
                         .subject = hardware_.text(),
                         .requirement = requirement,
                         .verdict = verdict,
                         .detail = detail,
                         .action = action,
                         .source = source,
                         .rule = rule,
                         .file = in_.input.path.string()});
    return fit_.rows.back();
  }

  bool gguf() const { return in_.input.kind == TargetKind::kGguf; }
  bool shards() const { return in_.input.kind == TargetKind::kInference; }

  std::int64_t cache_bytes() const {
    return gguf() && in_.gguf.mla == GgufMla::kUnsplit ? whole_cache_bytes(config_)
                                                       : latent_cache_bytes(config_);
  }

  void sizes() {
    const auto parameters = static_cast<std::uint64_t>(count_parameters(config_).total());
    const bool declared = in_.fp8_declared;
    fit_.fp8 = in_.tensors.count > 0 ? in_.tensors.fp8 > 0 : declared;
    fit_.weights = in_.tensors.count > 0 ? in_.tensors.bytes : parameters * (declared ? 1 : 2);
    fit_.weights_bf16 = in_.tensors.count > 0 ? in_.tensors.bytes_bf16 : 2 * parameters;
    fit_.cache = static_cast<std::uint64_t>(cache_bytes()) *
                 static_cast<std::uint64_t>(workload_.context * workload_.batch);
    fit_.usable = static_cast<std::uint64_t>(kUsableMemory * static_cast<double>(gpu_.memory));
    fit_.needed = needed(fit_.weights);
    if (gguf()) {
      fit_.smallest_count =
          static_cast<std::int64_t>((fit_.weights + fit_.cache + fit_.usable - 1) / fit_.usable);
      return;
    }
    if (shards()) {
      if (fit_.needed <= fit_.usable) fit_.smallest_count = in_.inference.ranks;
    } else if (fit_.usable > fit_.cache) {
      const std::uint64_t room = fit_.usable - fit_.cache;
      fit_.smallest_count = static_cast<std::int64_t>((fit_.weights + room - 1) / room);
    }
    fit_.degrees = tensor_parallel_degrees(config_, fit_.fp8, kDegreesShown);
    const std::int64_t count = hardware_.count;
    const bool listed = std::any_of(fit_.degrees.begin(), fit_.degrees.end(),
                                    [&](const TensorParallel& d) { return d.degree == count; });
    if (!listed && count <= kLargestDegree) {
      fit_.degrees.push_back(tensor_parallel_degree(config_, fit_.fp8, count));
      std::sort(fit_.degrees.begin(), fit_.degrees.end(),
                [](const auto& a, const auto& b) { return a.degree < b.degree; });
    }
  }
  std::uint64_t share(std::uint64_t bytes) const {
    const auto count = static_cast<std::uint64_t>(hardware_.count);
    return (bytes + count - 1) / count;
  }
  // Bytes of one GPU.
  std::uint64_t needed(std::uint64_t weights) const {
    if (gguf()) return share(weights + fit_.cache);
    // Of shards in another dtype only the whole is known.
    const bool same = weights == fit_.weights;
    if (shards() && same) return in_.inference.largest_shard + fit_.cache;
    return share(weights) + fit_.cache;
  }
  bool fits(std::uint64_t weights) const { return needed(weights) <= fit_.usable; }

  void arithmetic() {
    const std::string name = capability_name(gpu_);
    if (gguf()) {
      add("GGUF type", Verdict::kOk,
          fmt::format("{}: llama.cpp widens {} itself", name, in_.gguf.types), "",
          "ggml-org/llama.cpp, ggml/src/ggml-cuda");
      return;
    }
    if (fit_.fp8 && gpu_.fp8 == 0) {
      const std::string bf16 =
          gpu_.bf16 == 0 ? "it has no BF16 either"
                         : fmt::format("BF16 needs {}, which {}", gigabytes(fit_.weights_bf16),
                                       fits(fit_.weights_bf16) ? "fits" : "does not fit");
      add("FP8", Verdict::kRefuses,
          fmt::format("{}: no FP8 arithmetic (sm_{} or newer has it); {}", name, kFirstFp8, bf16),
          in_.convert("bf16") + (shards() ? ", or newer GPUs"
                                          : ", or weight-only FP8 (Marlin of vLLM), or newer GPUs"),
          "vllm-project/vllm issues 12581, 15336; sgl-project/sglang issue 7715", "hardware-fp8");
    } else if (fit_.fp8 && gpu_.fp8_form != "E4M3") {
      add("FP8", Verdict::kNeeds,
          fmt::format("the GPU has {}, the weights are E4M3: the same bits mean half the value",
                      gpu_.fp8_form),
          "an engine that rewrites codes and doubles scales while loading",
          "vllm-project/vllm PR 12134, sgl-project/sglang PR 35111");
    } else if (fit_.fp8) {
      add("FP8", Verdict::kOk, fmt::format("{}: E4M3, {:.0f} TFLOP/s", name, gpu_.fp8 / 1e12), "",
          kLimits);
    } else if (gpu_.bf16 == 0 && in_.find("mixed-dtypes") == nullptr &&
               config_.dtype != "float16") {
      add("BF16", Verdict::kRefuses, fmt::format("{}: no BF16 arithmetic", name),
          in_.convert("f16"), kLimits, "hardware-bf16");
    } else {
      add("BF16", Verdict::kOk, fmt::format("{}: {:.0f} TFLOP/s", name, gpu_.bf16 / 1e12), "",
          kLimits);
    }
    if (fit_.fp8 && gpu_.capability >= kBlackwell && gpu_.capability < kBeyondBlackwell &&
        !in_.ue8m0) {
      add("scale format", Verdict::kNeeds,
          fmt::format("{}: DeepGEMM needs powers of two (ue8m0); these scales are quantised again "
                      "while loading",
                      name),
          in_.convert("fp8 --scale_fmt ue8m0"), "deepseek-ai/DeepGEMM; sgl-project/sglang PR 28307",
          "hardware-scale-format");
    }
  }

  void memory() {
    const std::string room =
        fmt::format("{} a GPU; usable are {} ({:.0f} % of {})", format_bytes(fit_.needed),
                    format_bytes(fit_.usable), 100 * kUsableMemory, format_bytes(gpu_.memory));
    const std::string cache = format_bytes(fit_.cache);
    std::string sum;
    if (gguf()) {
      sum = fmt::format("({} of weights + {} of cache) / {} = {}", format_bytes(fit_.weights),
                        cache, hardware_.count, room);
    } else if (shards()) {
      sum = fmt::format("{} of the largest shard + {} of cache = {}",
                        format_bytes(in_.inference.largest_shard), cache, room);
    } else {
      sum = fmt::format("{} of weights / {} + {} of cache = {}", format_bytes(fit_.weights),
                        hardware_.count, cache, room);
    }
    if (fits(fit_.weights)) {
      add("memory", Verdict::kOk, sum, "", kCost);
    } else if (gguf()) {
      add("memory", Verdict::kNeeds, sum,
          fmt::format("at least {} of them; else -ngl or --cpu-moe of llama.cpp, which leave "
                      "layers or experts in the memory of the machine",
                      format_count(fit_.smallest_count)),
          "ggml-org/llama.cpp, common/arg.cpp", "hardware-memory");
    } else {
      add("memory", Verdict::kRefuses, sum, shards() ? more_ranks() : more_gpus(),
          "deepseek-ai/DeepSeek-V3 issue 855", "hardware-memory");
    }
  }

  std::string more_gpus() const {
    if (fit_.smallest_count == 0) return kSmallerCache;
    std::string action = fmt::format("at least {} of them", format_count(fit_.smallest_count));
    for (const TensorParallel& degree : fit_.degrees) {
      if (!degree.fits || degree.degree < fit_.smallest_count) continue;
      action += fmt::format(" (tensor parallel: {})", degree.degree);
      break;
    }
    return action;
  }

  std::string more_ranks() const {
    for (const TensorParallel& degree : fit_.degrees) {
      const auto count = static_cast<std::uint64_t>(degree.degree);
      if (!divides(degree) || (fit_.weights + count - 1) / count + fit_.cache > fit_.usable) {
        continue;
      }
      return in_.convert(fmt::format("inference --mp {}", degree.degree));
    }
    return fit_.cache >= fit_.usable ? kSmallerCache : "larger GPUs: no --mp is enough";
  }

  // Whether deepseek-convert can cut the model into so many shards.
  bool divides(const TensorParallel& degree) const {
    return degree.fits && config_.n_routed_experts % degree.degree == 0 &&
           config_.vocab_size % degree.degree == 0;
  }

  void ranks() {
    const std::int64_t ranks = in_.inference.ranks;
    const std::string count = fmt::format("{} shards, one a GPU", ranks);
    const char* source = "deepseek-ai/DeepSeek-V3 inference/generate.py";
    if (hardware_.count == ranks) {
      add("ranks", Verdict::kOk, count, "", source);
      return;
    }
    std::int64_t largest = 1;
    for (const TensorParallel& degree : fit_.degrees) {
      if (divides(degree) && degree.degree <= hardware_.count) largest = degree.degree;
    }
    std::string action = fmt::format("{} GPUs", ranks);
    if (largest != ranks) {
      action += "; or " + in_.convert(fmt::format("inference --mp {}", largest));
    }
    add("ranks", Verdict::kNeeds, fmt::format("{}; {} are named", count, hardware_.count), action,
        source, "hardware-ranks");
  }

  void context() {
    const std::int64_t bytes = cache_bytes();
    const bool whole = gguf() && in_.gguf.mla == GgufMla::kUnsplit;
    const std::string cache =
        fmt::format("{} bytes a token ({}, {}); {} tokens x {} = {}, {}", format_count(bytes),
                    whole ? "keys and values of all heads" : "MLA", gguf() ? "F16" : "BF16",
                    format_count(workload_.context), workload_.batch, format_bytes(fit_.cache),
                    gguf() ? "each GPU with that of its layers" : "held by every GPU");
    if (workload_.context > config_.max_position_embeddings) {
      add("cache", Verdict::kNeeds,
          fmt::format("{}; max_position_embeddings is {}", cache, config_.max_position_embeddings),
          fmt::format("--context {} or less", config_.max_position_embeddings), kCost,
          "hardware-context");
      return;
    }
    std::string room;
    if (fits(fit_.weights) && bytes > 0) {
      const std::uint64_t left =
          gguf() ? fit_.usable * static_cast<std::uint64_t>(hardware_.count) - fit_.weights
                 : fit_.usable - fit_.needed + fit_.cache;
      room = fmt::format("; room for {} tokens",
                         format_count(static_cast<std::int64_t>(left) / bytes));
    }
    add("cache", Verdict::kOk, cache + room, "", kCost);
  }

  // "degrees 1, 2 fit; 4, 8: TENSOR: 6 heads are no multiple of it".
  std::string degrees_text() const {
    std::string fine;
    std::string rest;
    const TensorParallel* last = nullptr;
    for (const TensorParallel& degree : fit_.degrees) {
      if (degree.fits) {
        fine += fmt::format("{}{}{}", fine.empty() ? "" : ", ", degree.degree,
                            degree.experts_whole ? "" : " (whole experts)");
        continue;
      }
      // One after another that fail for the same reason stand together.
      const std::string why = fmt::format(": {}: {}", degree.tensor, degree.reason);
      if (last != nullptr && last->reason == degree.reason && rest.ends_with(why)) {
        rest.resize(rest.size() - why.size());
        rest += fmt::format(", {}{}", degree.degree, why);
      } else {
        rest += fmt::format("; {}{}", degree.degree, why);
      }
      last = &degree;
    }
    return fmt::format("possible: {}{}", fine, rest);
  }

  void tensor_parallel() {
    std::int64_t largest = 1;
    const TensorParallel* all = nullptr;
    for (const TensorParallel& degree : fit_.degrees) {
      if (degree.degree == hardware_.count) all = &degree;
      if (degree.fits) largest = std::max(largest, degree.degree);
    }
    const std::string detail = degrees_text();
    if (all != nullptr && all->fits && all->experts_whole) {
      add("tensor parallel", Verdict::kOk, detail, "", kLimits);
    } else if (all != nullptr && all->fits) {
      add("tensor parallel", Verdict::kNeeds,
          fmt::format("{}; {}: {}: {}", detail, all->degree, all->tensor, all->reason),
          "keep experts whole (expert parallel)", "vllm-project/vllm issue 12256");
    } else {
      const std::string action =
          largest == 1 ? "no tensor parallelism: pipeline, expert or data parallel"
                       : fmt::format(
                             "tensor parallel {} or less, pipeline, expert or data parallel "
                             "beside it",
                             largest);
      CompatibilityRow& row =
          add("tensor parallel", Verdict::kNeeds, detail, action,
              "vllm-project/vllm issue 12256, sgl-project/sglang issue 3345",
              hardware_.count <= kLargestDegree ? "hardware-tensor-parallel" : "");
      if (all != nullptr) row.tensor = all->tensor;
    }
  }

  void expert_parallel() {
    const std::int64_t experts = config_.n_routed_experts;
    if (experts == 0 || hardware_.count == 1) return;
    if (experts % hardware_.count == 0) {
      add("expert parallel", Verdict::kOk,
          fmt::format("{} experts / {} = {} a GPU", experts, hardware_.count,
                      experts / hardware_.count),
          "", "NVIDIA/Megatron-LM issue 4050");
    } else {
      add("expert parallel", Verdict::kNeeds,
          fmt::format("{} experts are no multiple of {}", experts, hardware_.count),
          "redundant experts (EPLB), or another number of GPUs", "deepseek-ai/EPLB");
    }
  }

  const InputFacts& in_;
  const ModelConfig& config_;
  const Hardware& hardware_;
  const Gpu& gpu_;
  Workload workload_;
  HardwareFit fit_;
};

}  // namespace

std::int64_t latent_cache_bytes(const ModelConfig& config) {
  return 2 * (config.kv_lora_rank + config.qk_rope_head_dim) * config.num_hidden_layers;
}

std::int64_t whole_cache_bytes(const ModelConfig& config) {
  return 2 * config.num_attention_heads * (config.q_head_dim() + config.v_head_dim) *
         config.num_hidden_layers;
}

HardwareFit check_hardware(const InputFacts& input, const Hardware& hardware,
                           const Workload& workload) {
  return HardwareCheck(input, hardware, workload).run();
}

}  // namespace ds::check
