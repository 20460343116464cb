#include "libcore/check/rule_tables.h"

namespace ds::check {
namespace {

constexpr RuleGroup kContainer = RuleGroup::kContainer;
constexpr RuleGroup kArchitecture = RuleGroup::kArchitecture;
constexpr RuleGroup kQuantisation = RuleGroup::kQuantisation;
constexpr RuleGroup kTokenizer = RuleGroup::kTokenizer;
constexpr RuleGroup kAdapter = RuleGroup::kAdapter;
constexpr auto kError = Severity::kError;
constexpr auto kWarning = Severity::kWarning;
constexpr auto kNote = Severity::kNote;
constexpr const char* kFormat = "ggml docs/gguf.md";
constexpr const char* kReader = "ggml-org/llama.cpp, ggml/src/gguf.cpp";
constexpr const char* kConverter = "ggml-org/llama.cpp, conversion/deepseek.py";
constexpr const char* kVocabulary = "ggml-org/llama.cpp, src/llama-vocab.cpp";
constexpr const char* kAgain = "download or copy the file again";
constexpr const char* kConvert = "convert the model again (deepseek-convert weights --to gguf)";

constexpr Rule kRules[] = {
    {"DS400", "gguf-magic", kContainer, kError, "A GGUF file does not begin with \"GGUF\".",
     "the file is something else or is damaged", kAgain, kFormat},
    {"DS401", "gguf-version", kContainer, kError,
     "A GGUF file is of a version other than 2 and 3, or is big-endian.",
     "no current program reads it", kConvert, kFormat},
    {"DS402", "gguf-counts", kContainer, kError,
     "A GGUF header counts more keys or tensors than the file can hold.",
     "readers that believe it allocate too much or read out of bounds", kAgain, kFormat},
    {"DS403", "gguf-truncated", kContainer, kError,
     "A GGUF file ends inside its header or before its tensors do.",
     "an interrupted download or copy: loading fails, often late", kAgain, kReader},
    {"DS404", "gguf-text", kContainer, kError,
     "A name or text of a GGUF header is not UTF-8, is empty or is too long.",
     "readers refuse the file, or cut the name off", kConvert, kReader},
    {"DS405", "gguf-value", kContainer, kError,
     "A key of a GGUF file has an unknown type, an array of arrays, or a bool other than 0 and 1.",
     "nothing behind the key can be read", kAgain, kFormat},
    {"DS406", "gguf-duplicate", kContainer, kError, "A GGUF file has a key or a tensor twice.",
     "which of the two counts depends on the reader", kConvert, kReader},
    {"DS407", "gguf-alignment", kContainer, kError,
     "general.alignment of a GGUF file is no power of two, or no u32.",
     "the place of every tensor follows from it", kConvert, kFormat},
    {"DS408", "gguf-tensor-size", kContainer, kError,
     "A tensor of a GGUF file has more than 4 dimensions, an impossible size, or rows that are no "
     "whole blocks of its type.",
     "unchecked readers compute a wrong size and read out of bounds", kAgain, kReader},
    {"DS409", "gguf-tensor-type", kContainer, kError,
     "A tensor of a GGUF file has a type that ggml does not define.",
     "its size is not known, no program reads it",
     "update the program, or make the file again with a current one", kReader},
    {"DS410", "gguf-overlap", kContainer, kError, "Two tensors of a GGUF file share bytes.",
     "changing one changes the other; lenient readers accept such files", kConvert, kReader},
    {"DS411", "gguf-misaligned", kContainer, kError,
     "A tensor of a GGUF file does not begin at a multiple of the alignment.",
     "readers that map the file refuse it or read slowly", kConvert, kFormat},
    {"DS412", "gguf-hole", kContainer, kError, "Bytes between two tensors belong to none.",
     "llama.cpp refuses the file; hidden bytes may be an attack", kConvert, kReader},
    {"DS413", "gguf-trailing", kContainer, kWarning,
     "A GGUF file has bytes behind its last tensor.",
     "nobody knows what they are; two files may have been joined",
     "download the file again, or make it again", kFormat},
    {"DS414", "gguf-part-missing", kContainer, kError, "A part of a split GGUF model is absent.",
     "llama.cpp loads all parts or none", "download or copy the missing part",
     "ggml-org/llama.cpp, tools/gguf-split"},
    {"DS415", "gguf-part-keys", kContainer, kError,
     "The split.* keys of a GGUF file contradict its name or its tensors.",
     "the file was renamed, belongs to another split, or lost tensors",
     "give the parts their own names back, or split the model again",
     "ggml-org/llama.cpp, tools/gguf-split"},
    {"DS416", "gguf-part-overlap", kContainer, kError,
     "Two parts of a split GGUF model have a tensor of the same name.",
     "the parts are of different splits", "split the model again",
     "ggml-org/llama.cpp, tools/gguf-split"},
    {"DS417", "gguf-stray-part", kContainer, kWarning,
     "Beside a split GGUF model lie parts of another split of the same name.",
     "a part is easily taken from the wrong set", "move the other set away",
     "ggml-org/llama.cpp, tools/gguf-split"},

    {"DS420", "gguf-architecture", kArchitecture, kError,
     "general.architecture of a GGUF file is not deepseek2, or general.type is no model.",
     "programs build another network from it",
     "use a file that was converted from a DeepSeek-V2 or V3 model", kConverter},
    {"DS421", "gguf-key-missing", kArchitecture, kError,
     "A key that a deepseek2 model needs is absent.", "the network cannot be built", kConvert,
     kConverter},
    {"DS422", "gguf-key-type", kArchitecture, kError,
     "A key of a GGUF file has another type than it needs.", "llama.cpp refuses the file", kConvert,
     kConverter},
    {"DS423", "gguf-key-value", kArchitecture, kError,
     "A key of a GGUF file has a value that the architecture or the tensors contradict.",
     "the network cannot be built, or computes something else", kConvert, kConverter},
    {"DS424", "gguf-key-contradicts", kArchitecture, kError,
     "A key of a GGUF file has another value than the other keys demand.",
     "heads and ranks are given twice; programs go by one of the two", kConvert, kConverter},
    {"DS425", "gguf-key-default", kArchitecture, kNote,
     "A key that newer converters write is absent, so a default holds.",
     "defaults differ between programs and versions", kConvert, kConverter},
    {"DS426", "gguf-yarn", kArchitecture, kWarning,
     "A file with YaRN lacks yarn_log_multiplier, or its factor times the original length is not "
     "context_length.",
     "the softmax scale lacks its factor: answers get worse with length",
     "convert the model again with a current converter", "ggml-org/llama.cpp PR 17945"},
    {"DS427", "gguf-missing-tensor", kArchitecture, kError,
     "A tensor that the keys of a GGUF file demand is absent.", "llama.cpp refuses the file",
     kConvert, kConverter},
    {"DS428", "gguf-shape", kArchitecture, kError,
     "A tensor of a GGUF file has another shape than the keys demand.",
     "llama.cpp refuses the file; a transposed matrix of the same size computes nonsense", kConvert,
     kConverter},
    {"DS429", "gguf-unknown-tensor", kArchitecture, kWarning,
     "A tensor of a GGUF file is none that its keys demand.",
     "llama.cpp refuses a file with tensors it does not use",
     "correct the keys, or convert the model again", kConverter},
    {"DS430", "gguf-must-be-f32", kArchitecture, kWarning,
     "A norm, router, bias or other vector of a GGUF file is not F32.",
     "converters keep them in F32: programs fail on them or lose precision", kConvert, kConverter},
    {"DS431", "gguf-legacy-mla", kArchitecture, kNote,
     "A GGUF file has attn_kv_b in one piece, as before llama.cpp split it.",
     "newer programs lose the small cache of MLA, and some refuse the file",
     "convert the model again (deepseek-convert weights --to gguf)", "ggml-org/llama.cpp PR 12801"},
    {"DS432", "gguf-file-type", kArchitecture, kWarning,
     "general.file_type is not the type that most of a GGUF file's bytes have.",
     "programs show and choose by it", kConvert, kFormat},
    {"DS433", "gguf-quantised-without-version", kArchitecture, kWarning,
     "A GGUF file has quantised tensors and no general.quantization_version.",
     "readers cannot tell in which form the blocks are", kConvert, kFormat},

    {"DS434", "gguf-no-tokenizer", kTokenizer, kWarning, "A GGUF model has no tokenizer.* keys.",
     "llama.cpp refuses to load it", "convert the model again from a folder with its tokenizer",
     kVocabulary},
    {"DS435", "gguf-vocabulary", kTokenizer, kError,
     "The vocabulary arrays of a GGUF file are absent, of another type, or differ in length from "
     "each other or from token_embd.",
     "ids name rows that are not there", kConvert, kVocabulary},
    {"DS436", "gguf-duplicate-token", kTokenizer, kError,
     "Two tokens of a GGUF vocabulary have the same text.",
     "only one of them can be reached: text is encoded to other ids", kConvert, kVocabulary},
    {"DS437", "gguf-token-type", kTokenizer, kError,
     "A token type is none of 1 to 6, or a control token is typed as plain text.",
     "the token is cut into pieces that the model does not know", kConvert, kVocabulary},
    {"DS438", "gguf-merges", kTokenizer, kError,
     "A merge of a GGUF file is no pair of tokens that make a token.",
     "text is cut into other tokens than the model was trained on", kConvert, kVocabulary},
    {"DS439", "gguf-token-id", kTokenizer, kError,
     "A special token's id in a GGUF file is beyond the vocabulary, or names another token.",
     "generation does not begin or stop where it should",
     "correct the key, or convert the model again", kVocabulary},
    {"DS440", "gguf-pre-tokenizer", kTokenizer, kWarning,
     "tokenizer.ggml.pre of a GGUF file is absent or is none of this family's.",
     "llama.cpp cuts text by other rules: fluent, but worse answers", kConvert, kVocabulary},

    {"DS441", "gguf-not-finite", kQuantisation, kError,
     "A tensor of a GGUF file holds NaN or infinity, or a scale that is.",
     "one NaN makes every logit NaN", "convert the model again from sound weights",
     "field experience"},

    {"DS445", "gguf-adapter-keys", kAdapter, kError,
     "A GGUF adapter lacks adapter.type lora or a usable adapter.lora.alpha.",
     "llama.cpp refuses it, or adds it with the wrong strength",
     "convert the adapter again (deepseek-convert adapter --to gguf_lora)",
     "ggml-org/llama.cpp, src/llama-adapter.cpp"},
};

}  // namespace

std::span<const Rule> gguf_rules() { return kRules; }

}  // namespace ds::check
