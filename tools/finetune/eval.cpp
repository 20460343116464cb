#include "tools/finetune/eval.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/stop.h"
#include "libcore/base/system.h"
#include "libcore/io/safetensors.h"
#include "libcore/model/choices.h"
#include "libcore/model/generate.h"
#include "tools/finetune/plan_report.h"
#include "tools/finetune/scoring.h"
#include "tools/finetune/session.h"

namespace ds::finetune {

namespace {

// Tokens of one forward pass: enough to keep the products large.
constexpr std::int64_t kBatchTokens = 4096;
constexpr std::size_t kMostChoices = 1000;

// A row as question and answer: the last run of target tokens is the answer.
struct Item {
  std::vector<std::int32_t> prompt;
  std::vector<std::int32_t> answer;  // without the end-of-sentence token
  std::int64_t line = 0;
};

Item split_item(const Example& example, const std::vector<std::int64_t>& eos) {
  Item item;
  item.line = example.line;
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

class EvalRun {
 public:
  EvalRun(const EvalSettings& settings, cli::Run& run) : settings_(settings), run_(run) {}
  void execute();

 private:
  void load();
  void measure_loss();
  void measure_exact_match();
  void measure_choice();
  void dump_logits();
  void score(std::size_t row, const std::string& prediction, const std::string& reference);
  std::string text_of(const std::vector<std::int32_t>& ids) const;
  Exec exec() {
    return {.device = *device_, .saved = saved_, .scratch = scratch_, .dtype = model_->dtype()};
  }
  void check_stop() const {
    if (stop_requested()) throw Error(ExitCode::kInterrupted, "stopped; nothing was written");
  }
  void emit();

  const EvalSettings& settings_;
  cli::Run& run_;
  Base base_;
  Dataset data_;
  std::vector<Item> items_;
  std::unique_ptr<DeepSeekModel> model_;
  std::unique_ptr<Device> device_;
  Arena saved_{"activations"};
  Arena scratch_{"workspace"};
  double loss_ = 0.0;
  std::pair<double, double> loss_interval_;
  std::int64_t correct_ = 0;
  std::int64_t scored_ = 0;
  std::map<std::string, ClassScore> classes_;
  std::string predictions_;
};

void EvalRun::load() {
  base_ = find_base(settings_.model.model);
  std::string said;
  const ChatTemplate kind = choose_template(settings_.data.chat_template, base_, said);
  if (!said.empty()) run_.warn(said);
  run_.input(base_.folder / "config.json");
  data_ = load_dataset(dataset_options(settings_.data, settings_.data.dataset, kind, base_.config),
                       base_.tokenizer ? &*base_.tokenizer : nullptr);
  report_data(run_, data_, "eval");
  std::size_t longest = 1;
  for (const Example& example : data_.examples) longest = std::max(longest, example.ids.size());
  // A long prompt may be judged with another row's long answer.
  const std::int64_t positions =
      static_cast<std::int64_t>(longest) +
      std::max(settings_.max_new_tokens, static_cast<std::int64_t>(longest) + 1);
  model_ = load_for_inference(base_, settings_.model, positions);
  device_ = std::make_unique<Device>(Device::cpu(run_.threads()));
  for (const Example& example : data_.examples) {
    items_.push_back(split_item(example, base_.config.eos_token_ids));
  }
}

std::string EvalRun::text_of(const std::vector<std::int32_t>& ids) const {
  if (base_.tokenizer) return trimmed(base_.tokenizer->decode(ids, true));
  std::string text;
  for (const std::int32_t id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  return text;
}

void EvalRun::measure_loss() {
  std::vector<double> sums;
  std::vector<double> counts;
  double total = 0.0;
  std::size_t row = 0;
  for (const TokenBatch& batch : eval_batches(data_, kBatchTokens)) {
    check_stop();
    Exec e = exec();
    std::vector<double> each;
    const LossSums part = model_->loss(e, batch, &each);
    if (part.non_finite >= 0) {
      const std::string weight = model_->find_non_finite_weight();
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
      double sum = 0.0;
      double count = 0.0;
      for (std::int32_t i = batch.segments[s]; i < batch.segments[s + 1]; ++i) {
        if (batch.targets[static_cast<std::size_t>(i)] == kNoTarget) continue;
        sum += each[at++];
        count += 1.0;
      }
      sums.push_back(sum);
      counts.push_back(count);
      total += sum;
      ++row;
    }
    run_.progress(fmt::format("loss: {} of {} rows", row, data_.examples.size()),
                  static_cast<double>(row) / static_cast<double>(data_.examples.size()));
  }
  double targets = 0.0;
  for (const double count : counts) targets += count;
  loss_ = total / std::max(targets, 1.0);
  loss_interval_ = ratio_interval(sums, counts);
}

void EvalRun::score(std::size_t row, const std::string& prediction, const std::string& reference) {
  const bool right = prediction == reference;
  ++scored_;
  correct_ += right ? 1 : 0;
  ClassScore& score = classes_[reference];
  ++score.n;
  score.correct += right ? 1 : 0;
  if (!settings_.predictions.empty()) {
    const nlohmann::json line{{"line", items_[row].line},
                              {"prediction", prediction},
                              {"reference", reference},
                              {"correct", right}};
    predictions_ += line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
}

void EvalRun::measure_exact_match() {
  std::vector<std::vector<std::int32_t>> prompts;
  for (const Item& item : items_) prompts.push_back(item.prompt);
  const GenerateOptions options{.max_new_tokens = settings_.max_new_tokens,
                                .stop_ids = base_.config.eos_token_ids,
                                .vocab_limit = base_.tokenizer ? base_.tokenizer->vocab_size() : 0};
  Exec e = exec();
  std::size_t seen = 0;
  const auto generated = generate(
      *model_, e, prompts, options, settings_.batch_size, [&](std::size_t prompt, std::int32_t) {
        if (prompt > seen) seen = prompt;
        run_.progress(fmt::format("answers: {} of {} rows", seen, prompts.size()),
                      static_cast<double>(seen) / static_cast<double>(prompts.size()));
        return !stop_requested();
      });
  check_stop();
  for (std::size_t i = 0; i < items_.size(); ++i) {
    score(i, text_of(generated[i].ids), text_of(items_[i].answer));
  }
}

// The candidates are the distinct answers of the dataset; the most likely one (sum of log
// probabilities, end of sentence included) is the prediction.
void EvalRun::measure_choice() {
  std::set<std::vector<std::int32_t>> distinct;
  for (const Item& item : items_) distinct.insert(item.answer);
  const std::vector<std::vector<std::int32_t>> choices(distinct.begin(), distinct.end());
  if (choices.size() < 2 || choices.size() > kMostChoices) {
    throw Error(
        ExitCode::kBadInput,
        fmt::format("--metric choice needs 2 to {} distinct answers in the dataset, it has {}",
                    kMostChoices, choices.size()),
        "use --metric exact_match");
  }
  const auto eos = static_cast<std::int32_t>(
      base_.config.eos_token_ids.empty() ? 1 : base_.config.eos_token_ids.front());
  std::vector<std::vector<std::int32_t>> ended = choices;
  for (auto& choice : ended) choice.push_back(eos);
  // Sequences that go on at once: choices of several rows, or of one where there are many.
  constexpr std::size_t kSequences = 512;
  const std::size_t together = std::max<std::size_t>(1, kSequences / choices.size());
  for (std::size_t first = 0; first < items_.size(); first += together) {
    check_stop();
    const std::size_t end = std::min(items_.size(), first + together);
    std::vector<std::vector<std::int32_t>> prompts;
    for (std::size_t i = first; i < end; ++i) prompts.push_back(items_[i].prompt);
    Exec e = exec();
    const auto losses = choice_losses(*model_, e, prompts, ended);
    for (std::size_t i = first; i < end; ++i) {
      const auto& row = losses[i - first];
      const auto best =
          static_cast<std::size_t>(std::min_element(row.begin(), row.end()) - row.begin());
      score(i, text_of(choices[best]), text_of(items_[i].answer));
    }
    run_.progress(fmt::format("choices: {} of {} rows", end, items_.size()),
                  static_cast<double>(end) / static_cast<double>(items_.size()));
  }
}

void EvalRun::dump_logits() {
  std::size_t positions = 1;
  for (const Example& example : data_.examples) positions = std::max(positions, example.ids.size());
  const auto rows = static_cast<std::int64_t>(data_.examples.size());
  const auto width = static_cast<std::int64_t>(positions);
  const std::int64_t vocab = base_.config.vocab_size;
  const double bytes =
      4.0 * static_cast<double>(rows) * static_cast<double>(width) * static_cast<double>(vocab);
  if (bytes > 0.8 * static_cast<double>(memory_info().available)) {
    throw Error(
        ExitCode::kResources,
        fmt::format("--dump_logits would hold [{}, {}, {}] f32 values ({:.1f} GiB) in memory", rows,
                    width, vocab, bytes / 1073741824.0),
        "dump fewer or shorter rows");
  }
  Tensor all(DType::kF32, {rows, width, vocab});
  for (std::int64_t row = 0; row < rows; ++row) {
    check_stop();
    TokenBatch batch;
    append_segment(batch, data_.examples[static_cast<std::size_t>(row)]);
    Exec e = exec();
    model_->logits(e, batch, [&](std::int64_t first, const ConstView& part) {
      for (std::int64_t i = 0; i < part.rows(); ++i) {
        std::memcpy(all.as<float>() + ((row * width) + first + i) * vocab,
                    part.as<float>() + i * part.row_stride(),
                    static_cast<std::size_t>(vocab) * sizeof(float));
      }
    });
  }
  write_safetensors(settings_.dump_logits,
                    {{"logits", DType::kF32, {rows, width, vocab}, all.data()}},
                    {{"format", "pt"}});
  run_.info(
      fmt::format("wrote logits [{}, {}, {}] to {}", rows, width, vocab, settings_.dump_logits));
}

void EvalRun::emit() {
  const bool by_loss = settings_.metric == "loss";
  const auto n = static_cast<std::int64_t>(by_loss ? data_.examples.size()
                                                   : static_cast<std::size_t>(scored_));
  const double value =
      by_loss ? loss_
              : static_cast<double>(correct_) / static_cast<double>(std::max<std::int64_t>(n, 1));
  const auto interval = by_loss ? loss_interval_ : wilson_interval(correct_, scored_);
  nlohmann::json result{{"metric", settings_.metric},
                        {"n", n},
                        {"value", value},
                        {"interval", {interval.first, interval.second}},
                        {"loss", loss_},
                        {"perplexity", std::exp(loss_)}};
  nlohmann::json table = nlohmann::json::array();
  for (const auto& [name, score] : classes_) {
    table.push_back(
        {{"class", name},
         {"n", score.n},
         {"correct", score.correct},
         {"accuracy", static_cast<double>(score.correct) / static_cast<double>(score.n)}});
  }
  if (!by_loss) result["classes"] = table;
  nlohmann::json event = result;
  event["step"] = 0;
  run_.event("deepseek/eval/1", std::move(event));
  std::string text = fmt::format("{} {:.4f} (95 % interval {:.4f} to {:.4f}) over {} rows\n",
                                 settings_.metric, value, interval.first, interval.second, n);
  text += fmt::format("loss {:.4f} a target token, perplexity {:.3f}\n", loss_, std::exp(loss_));
  // A table of one-row classes (free-text answers) tells nothing.
  if (!by_loss && classes_.size() > 1 && 2 * classes_.size() <= static_cast<std::size_t>(n)) {
    for (const auto& [name, score] : classes_) {
      text += fmt::format("  {:<32} {:>5} of {:<5} {:.3f}\n", name, score.correct, score.n,
                          static_cast<double>(score.correct) / static_cast<double>(score.n));
    }
  }
  run_.product(text, result);
}

void EvalRun::execute() {
  load();
  if (!settings_.dump_logits.empty()) dump_logits();
  measure_loss();
  if (settings_.metric == "exact_match") measure_exact_match();
  if (settings_.metric == "choice") measure_choice();
  run_.progress_clear();
  if (!settings_.predictions.empty()) write_file(settings_.predictions, predictions_);
  emit();
}

}  // namespace

void run_eval(const EvalSettings& settings, cli::Run& run) { EvalRun(settings, run).execute(); }

}  // namespace ds::finetune
