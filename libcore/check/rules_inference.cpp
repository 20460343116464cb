#include "libcore/check/rule_tables.h"

namespace ds::check {
namespace {

constexpr RuleGroup kContainer = RuleGroup::kContainer;
constexpr RuleGroup kArchitecture = RuleGroup::kArchitecture;
constexpr RuleGroup kQuantisation = RuleGroup::kQuantisation;
constexpr auto kError = Severity::kError;
constexpr auto kWarning = Severity::kWarning;
constexpr auto kNote = Severity::kNote;
constexpr const char* kConvert = "deepseek-ai/DeepSeek-V3 inference/convert.py";
constexpr const char* kModel = "deepseek-ai/DeepSeek-V3 inference/model.py";
constexpr const char* kAgain =
    "convert the checkpoint again (deepseek-convert weights --to inference)";

constexpr Rule kRules[] = {
    {"DS450", "inference-shard-missing", kContainer, kError,
     "A shard model{rank}-mp{N}.safetensors of the inference layout is absent.",
     "the process of that rank fails, and all others wait for it",
     "copy the shard from where the others came from", kConvert},
    {"DS451", "inference-mixed-sets", kContainer, kError,
     "A folder holds shards of the inference layout for different numbers of ranks.",
     "nothing says which set is the model", "move one of the sets away", kConvert},
    {"DS452", "inference-stray-file", kContainer, kWarning,
     "A folder of inference shards holds another safetensors file.",
     "the demo does not read it; converters that read by glob do", "move the file away", kConvert},

    {"DS453", "inference-name", kArchitecture, kError,
     "A tensor has a name that the inference layout does not have.",
     "the demo's loader refuses the shard, or leaves a weight uninitialised", kAgain, kConvert},
    {"DS454", "inference-not-in-all", kArchitecture, kError,
     "A tensor that every rank needs is in some shards only.",
     "the ranks without it fail or compute with uninitialised memory", kAgain, kModel},
    {"DS455", "inference-ranks-differ", kArchitecture, kError,
     "A tensor has another shape or dtype in one shard than in another.",
     "the shards are of different models, or were cut unevenly", kAgain, kModel},
    {"DS456", "inference-shape", kArchitecture, kError,
     "A tensor of a shard has another shape than config.json demands of one of N ranks.",
     "loading fails, or a rank computes with the part of another", kAgain, kModel},
    {"DS457", "inference-missing-tensor", kArchitecture, kError,
     "A tensor that config.json demands is in no shard.", "the demo leaves it uninitialised",
     kAgain, kModel},
    {"DS458", "inference-unknown-tensor", kArchitecture, kWarning,
     "A tensor of a shard is none that config.json demands.",
     "the demo's loader refuses it, or the config is of another model",
     "restore the config.json that belongs to these weights", kModel},
    {"DS459", "inference-expert-rank", kArchitecture, kError,
     "A routed expert is in a shard of another rank than its number says, or in several.",
     "tokens that are routed to it get the output of another expert, or none", kAgain, kModel},
    {"DS460", "inference-not-divisible", kArchitecture, kError,
     "A size of config.json that is shared out is no multiple of the number of ranks.",
     "the demo's asserts fail, or rows get lost", "convert with an --mp that divides them", kModel},
    {"DS461", "inference-without-config", kArchitecture, kNote,
     "A folder of inference shards has no config.json.",
     "the demo takes it from elsewhere; nothing can be compared with it here",
     "copy config.json of the original model, or the demo's configuration, into the folder",
     "deepseek-ai/DeepSeek-V3 inference/configs"},

    {"DS465", "inference-scale", kQuantisation, kError,
     "An FP8 weight of a shard has no scale beside it, or one of another shape or dtype; or a "
     "scale "
     "has no FP8 weight.",
     "the demo computes with the raw codes, or with a neighbour's scales", kAgain, kModel},
    {"DS466", "inference-block-cut", kQuantisation, kError,
     "The cut between two ranks goes through a block of 128 that has one scale.",
     "the part behind the cut gets scales of other rows", "convert with a smaller --mp",
     "vllm-project/vllm issue 12256, sgl-project/sglang issue 3345"},
    {"DS467", "inference-copies-differ", kArchitecture, kError,
     "A tensor that every shard must hold alike has other bytes in one of them.",
     "the ranks compute different models and their sum is neither", kAgain, kModel},
};

}  // namespace

std::span<const Rule> inference_rules() { return kRules; }

}  // namespace ds::check
