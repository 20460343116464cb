#include "libcore/eval/evaluator.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/stop.h"
#include "libcore/eval/scoring.h"
#include "libcore/model/choices.h"
#include "libcore/model/generate.h"

namespace ds {

namespace {

// Tokens of one forward pass: enough to keep the products large.
constexpr std::int64_t kBatchTokens = 4096;
constexpr std::size_t kMostChoices = 1000;

void check_stop() {
  if (stop_requested()) throw Error(ExitCode::kInterrupted, "stopped; nothing was written");
}

}  // namespace

EvalItem split_item(const Example& example, const std::vector<std::int64_t>& eos) {
  EvalItem item;
  std::size_t end = example.labels.size();
  while (end > 0 && example.labels[end - 1] == kNoTarget) --end;
  std::size_t begin = end;
  while (begin > 1 && example.labels[begin - 1] != kNoTarget) --begin;
  item.prompt.assign(example.ids.begin(), example.ids.begin() + static_cast<std::ptrdiff_t>(begin));
  item.answer.assign(example.ids.begin() + static_cast<std::ptrdiff_t>(begin),
                     example.ids.begin() + static_cast<std::ptrdiff_t>(end));
  while (!item.answer.empty() &&
         std::find(eos.begin(), eos.end(), item.answer.back()) != eos.end()) {
    item.answer.pop_back();
  }
  return item;
}

std::vector<TokenBatch> eval_batches(std::span<const Example> rows, std::int64_t tokens) {
  std::vector<TokenBatch> batches;
  for (const Example& example : rows) {
    const auto length = static_cast<std::int64_t>(example.ids.size());
    if (batches.empty() || batches.back().tokens() + length > tokens) batches.emplace_back();
    append_segment(batches.back(), example);
  }
  return batches;
}

std::vector<std::vector<std::int32_t>> distinct_answers(std::span<const EvalItem> items) {
  std::set<std::vector<std::int32_t>> distinct;
  for (const EvalItem& item : items) distinct.insert(item.answer);
  if (distinct.size() < 2 || distinct.size() > kMostChoices) {
    throw Error(
        ExitCode::kBadInput,
        fmt::format("--metric choice needs 2 to {} distinct answers in the dataset, it has {}",
                    kMostChoices, distinct.size()),
        "use --metric exact_match");
  }
  return {distinct.begin(), distinct.end()};
}

Evaluator::Evaluator(const BaseModel& base, DeepSeekModel& model, int threads)
    : base_(base), model_(model), device_(Device::cpu(threads)) {}

Exec Evaluator::exec() {
  return {.device = device_, .saved = saved_, .scratch = scratch_, .dtype = model_.dtype()};
}

std::string Evaluator::text_of(const std::vector<std::int32_t>& ids) const {
  if (base_.tokenizer) return trimmed(base_.tokenizer->decode(ids, true));
  std::string text;
  for (const std::int32_t id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  return text;
}

std::vector<RowLoss> Evaluator::losses(std::span<const Example> rows, const Progress& progress) {
  std::vector<RowLoss> out;
  out.reserve(rows.size());
  for (const TokenBatch& batch : eval_batches(rows, kBatchTokens)) {
    check_stop();
    Exec e = exec();
    std::vector<double> each;
    const LossSums part = model_.loss(e, batch, &each);
    if (part.non_finite >= 0) {
      const std::string weight = model_.find_non_finite_weight();
      if (!weight.empty()) {
        throw Error(ExitCode::kBadInput, weight,
                    "the base checkpoint is damaged: download or convert it again");
      }
      throw Error(ExitCode::kFindings,
                  fmt::format("the loss of a row between lines {} and {} is not finite",
                              batch.lines.front(), batch.lines.back()),
                  "check the model's weights and scales for NaN and infinity");
    }
    std::size_t at = 0;
    for (std::size_t s = 0; s + 1 < batch.segments.size(); ++s) {
      RowLoss& row = out.emplace_back();
      for (std::int32_t i = batch.segments[s]; i < batch.segments[s + 1]; ++i) {
        if (batch.targets[static_cast<std::size_t>(i)] == kNoTarget) continue;
        row.sum += each[at++];
        row.targets += 1.0;
      }
    }
    if (progress) progress(out.size());
  }
  return out;
}

std::vector<RowAnswer> Evaluator::answers(std::span<const EvalItem> items,
                                          std::int64_t max_new_tokens, std::int64_t batch,
                                          const Progress& progress) {
  std::vector<std::vector<std::int32_t>> prompts;
  for (const EvalItem& item : items) prompts.push_back(item.prompt);
  const GenerateOptions options{.max_new_tokens = max_new_tokens,
                                .stop_ids = base_.config.eos_token_ids,
                                .vocab_limit = base_.tokenizer ? base_.tokenizer->vocab_size() : 0};
  Exec e = exec();
  std::size_t seen = 0;
  const auto generated =
      generate(model_, e, prompts, options, batch, [&](std::size_t prompt, std::int32_t) {
        seen = std::max(seen, prompt);
        if (progress) progress(seen);
        return !stop_requested();
      });
  check_stop();
  std::vector<RowAnswer> out;
  for (const Generated& one : generated) {
    out.push_back({text_of(one.ids), static_cast<std::int64_t>(one.ids.size())});
  }
  return out;
}

std::vector<std::size_t> Evaluator::choose(std::span<const EvalItem> items,
                                           const std::vector<std::vector<std::int32_t>>& choices,
                                           const Progress& progress) {
  const auto eos = static_cast<std::int32_t>(
      base_.config.eos_token_ids.empty() ? 1 : base_.config.eos_token_ids.front());
  std::vector<std::vector<std::int32_t>> ended = choices;
  for (auto& choice : ended) choice.push_back(eos);
  // Sequences that go on at once: choices of several rows, or of one where there are many.
  constexpr std::size_t kSequences = 512;
  const std::size_t together = std::max<std::size_t>(1, kSequences / choices.size());
  std::vector<std::size_t> chosen;
  for (std::size_t first = 0; first < items.size(); first += together) {
    check_stop();
    const std::size_t end = std::min(items.size(), first + together);
    std::vector<std::vector<std::int32_t>> prompts;
    for (std::size_t i = first; i < end; ++i) prompts.push_back(items[i].prompt);
    Exec e = exec();
    for (const auto& row : choice_losses(model_, e, prompts, ended)) {
      chosen.push_back(
          static_cast<std::size_t>(std::min_element(row.begin(), row.end()) - row.begin()));
    }
    if (progress) progress(end);
  }
  return chosen;
}

}  // namespace ds
