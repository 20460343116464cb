// What a model makes of rows: losses, greedy answers, the likeliest of given answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "libcore/data/example.h"
#include "libcore/eval/base_model.h"
#include "libcore/nn/exec.h"
#include "libcore/tensor/arena.h"

namespace ds {

// A row as question and answer: the last run of target tokens is the answer.
struct EvalItem {
  std::vector<std::int32_t> prompt;
  std::vector<std::int32_t> answer;  // without the end-of-sentence token
};
EvalItem split_item(const Example& example, const std::vector<std::int64_t>& eos);

// The rows as batches of at most `tokens` tokens (at least one row each).
std::vector<TokenBatch> eval_batches(std::span<const Example> rows, std::int64_t tokens);

struct RowLoss {
  double sum = 0.0;      // of -log p over the row's targets
  double targets = 0.0;  // their number
};
struct RowAnswer {
  std::string text;         // trimmed
  std::int64_t tokens = 0;  // generated
};

// Holds the workspace of one model. `progress` (may be empty) is called with the rows done; all
// functions throw Error(kInterrupted) when a stop was asked for.
class Evaluator {
 public:
  using Progress = std::function<void(std::size_t)>;
  // `base` and `model` must outlive this object.
  Evaluator(const BaseModel& base, DeepSeekModel& model, int threads);

  Exec exec();
  // One a row. Throws Error(kBadInput) naming a weight that is not finite, Error(kFindings) for a
  // loss that is not.
  std::vector<RowLoss> losses(std::span<const Example> rows, const Progress& progress);
  // Greedy answers to the rows' prompts.
  std::vector<RowAnswer> answers(std::span<const EvalItem> items, std::int64_t max_new_tokens,
                                 std::int64_t batch, const Progress& progress);
  // For each row the index of the choice with the largest sum of log probabilities, end of sentence
  // included.
  std::vector<std::size_t> choose(std::span<const EvalItem> items,
                                  const std::vector<std::vector<std::int32_t>>& choices,
                                  const Progress& progress);
  // Trimmed; ids as numbers where there is no tokenizer.
  std::string text_of(const std::vector<std::int32_t>& ids) const;

 private:
  const BaseModel& base_;
  DeepSeekModel& model_;
  Device device_;
  Arena saved_{"activations"};
  Arena scratch_{"workspace"};
};

// The distinct answers, sorted. Throws Error(kBadInput) when there are fewer than 2 or more than
// 1000.
std::vector<std::vector<std::int32_t>> distinct_answers(std::span<const EvalItem> items);

}  // namespace ds
