// From a data file to tokenised examples (reference/text.md sections 6-8).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "libcore/data/example.h"
#include "libcore/data/formats.h"
#include "libcore/data/row_source.h"
#include "libcore/text/chat_template.h"
#include "libcore/text/tokenizer.h"

namespace ds {

// What happens to a row of more than cutoff_len tokens.
enum class Truncation {
  kProportional,  // LLaMA-Factory's rule, turn by turn (proportional_lengths); pre-tokenised rows,
                  // which have no turns, are cut at their end
  kLeft,          // the begin-of-sentence token and the last tokens stay
  kRight,         // the first tokens stay
  kSkip,          // the row is dropped ("too_long")
  kError,         // Error(kBadInput) naming the row
};

struct DatasetOptions {
  std::vector<std::filesystem::path> files;
  ChatTemplate chat_template = ChatTemplate::kV31;
  bool thinking = false;           // for rows that do not say it themselves
  std::int64_t cutoff_len = 2048;  // tokens a row may have, at least 2
  Truncation truncation = Truncation::kProportional;
  bool train_on_prompt = false;  // everything is a target
  bool mask_history = false;     // only the last assistant turn is; not with train_on_prompt
  EncodingPolicy encoding = EncodingPolicy::kReplace;
  std::int64_t vocab_size = 0;  // the model's: ids are checked against it; 0: not checked
};

// One dropped or repaired row; a row repaired in several ways has several.
struct RowProblem {
  std::filesystem::path file;
  std::int64_t line = 0;
  std::int64_t column = 0;  // 0: does not apply
  std::string field;        // "messages[1].content"; empty: the row as a whole
  std::string reason;       // a sentence
  std::string kind;         // see RowRemark
  bool dropped = true;      // false: repaired, or kept with a remark
};

struct Dataset {
  std::vector<Example> examples;  // in file order
  std::vector<std::filesystem::path> files;
  std::map<std::string, std::int64_t> dropped_by_kind;
  std::map<std::string, std::int64_t> repaired_by_kind;  // of kept rows
  std::vector<RowProblem> problems;                      // the first 1000, in file order
  // Detected format of each file; "unknown" for one without a usable row.
  std::map<std::string, std::string> format_by_file;
  std::int64_t rows_read = 0;  // = examples.size() + all dropped, always
  std::int64_t truncated = 0;
  std::int64_t tokens = 0;
  std::int64_t target_tokens = 0;
};

// Reads, converts, renders, tokenises and masks every row; the result is the same for every thread
// count. `tokenizer` may be null when all rows are pre-tokenised. Memory grows with the examples,
// not with the files. Throws Error(kBadInput) when no usable row remains (with the most frequent
// reasons and the first lines), when a row breaks EncodingPolicy::kError or Truncation::kError,
// Error(kIo) when a file cannot be read, Error(kUsage) for options that contradict each other,
// Error(kInterrupted) after a stop signal.
Dataset load_dataset(const DatasetOptions& options, const Tokenizer* tokenizer);

// The fields of a deepseek/data/1 event: files, formats (one each), rows_read, kept, dropped {kind:
// n}, repaired {kind: n}, truncated, tokens, target_tokens.
nlohmann::json describe(const Dataset& dataset);

// <think>R</think>A (or R</think>A) inside the content of `message` becomes its reasoning. R1's
// layout has line breaks around R and before A, which belong to the layout.
void split_reasoning(Message& message, ChatTemplate kind);

// LLaMA-Factory's proportional rule (text.md section 8): lengths kept of source and target.
struct KeptLengths {
  std::int64_t source = 0;
  std::int64_t target = 0;
};
KeptLengths proportional_lengths(std::int64_t source, std::int64_t target, std::int64_t limit);

// One row as the trainer sees it: ids with BOS once (pre-tokenised rows as they are), labels by
// position, truncated as told. line and file of the example are not set.
// Conversations: the assistant's words, calls and end-of-sentence are targets; the reasoning of the
// last turn is kept unless the row says thinking: false. Text: everything, with EOS at its end.
// prompt_completion: completion and EOS. EOS is a target exactly when its answer is whole.
struct TokenizedRow {
  std::optional<Example> example;  // absent: unusable, see problem
  RowRemark problem;
  std::vector<RowRemark> repairs;
};
// `row.content` must be there; `tokenizer` may be null for a TokenRow. Never throws for bad rows
// (Truncation::kError reports "too_long" like kSkip).
TokenizedRow tokenize_row(const ConvertedRow& row, const DatasetOptions& options,
                          const Tokenizer* tokenizer);
// The same for one conversation. nullopt + reason when nothing usable remains.
std::optional<Example> tokenize_conversation(const Conversation& conversation,
                                             const DatasetOptions& options,
                                             const Tokenizer& tokenizer, std::string& reason);

// Groups of example indices whose lengths sum to at most `capacity`: best-fit decreasing, stable,
// so that the same input always gives the same packs. Members of a pack, and packs by their first
// member, stand in the order of `order` (a shuffled order stays shuffled). Throws Error(kBadInput)
// for an example longer than `capacity`.
std::vector<std::vector<std::int64_t>> pack_examples(const std::vector<Example>& examples,
                                                     const std::vector<std::int64_t>& order,
                                                     std::int64_t capacity);

}  // namespace ds
