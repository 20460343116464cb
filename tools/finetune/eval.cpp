#include "tools/finetune/eval.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/stop.h"
#include "libcore/base/system.h"
#include "libcore/eval/evaluator.h"
#include "libcore/eval/scoring.h"
#include "libcore/io/safetensors.h"
#include "tools/finetune/plan_report.h"
#include "tools/finetune/session.h"

namespace ds::finetune {

namespace {

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
  // Words of the live line.
  Evaluator::Progress show(const char* what);
  void emit();

  const EvalSettings& settings_;
  cli::Run& run_;
  BaseModel base_;
  Dataset data_;
  std::vector<EvalItem> items_;
  std::unique_ptr<DeepSeekModel> model_;
  std::unique_ptr<Evaluator> evaluator_;
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
  evaluator_ = std::make_unique<Evaluator>(base_, *model_, run_.threads());
  for (const Example& example : data_.examples) {
    items_.push_back(split_item(example, base_.config.eos_token_ids));
  }
}

Evaluator::Progress EvalRun::show(const char* what) {
  return [this, what](std::size_t done) {
    run_.progress(fmt::format("{}: {} of {} rows", what, done, items_.size()),
                  static_cast<double>(done) / static_cast<double>(items_.size()));
  };
}

void EvalRun::measure_loss() {
  std::vector<double> sums;
  std::vector<double> counts;
  double total = 0.0;
  double targets = 0.0;
  for (const RowLoss& row : evaluator_->losses(data_.examples, show("loss"))) {
    sums.push_back(row.sum);
    counts.push_back(row.targets);
    total += row.sum;
    targets += row.targets;
  }
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
    const nlohmann::json line{{"line", data_.examples[row].line},
                              {"prediction", prediction},
                              {"reference", reference},
                              {"correct", right}};
    predictions_ += line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
}

void EvalRun::measure_exact_match() {
  const auto answers =
      evaluator_->answers(items_, settings_.max_new_tokens, settings_.batch_size, show("answers"));
  for (std::size_t i = 0; i < items_.size(); ++i) {
    score(i, answers[i].text, evaluator_->text_of(items_[i].answer));
  }
}

// The candidates are the distinct answers of the dataset.
void EvalRun::measure_choice() {
  const auto choices = distinct_answers(items_);
  const auto chosen = evaluator_->choose(items_, choices, show("choices"));
  for (std::size_t i = 0; i < items_.size(); ++i) {
    score(i, evaluator_->text_of(choices[chosen[i]]), evaluator_->text_of(items_[i].answer));
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
    if (stop_requested()) throw Error(ExitCode::kInterrupted, "stopped; nothing was written");
    TokenBatch batch;
    append_segment(batch, data_.examples[static_cast<std::size_t>(row)]);
    Exec e = evaluator_->exec();
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
