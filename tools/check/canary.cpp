#include "tools/check/canary.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/hash.h"
#include "libcore/base/rng.h"
#include "libcore/cli/environment.h"
#include "libcore/data/dataset.h"
#include "libcore/eval/evaluator.h"
#include "tools/check/canary_report.h"
#include "tools/check/canary_state.h"

namespace ds::check {

namespace {

// Rows that one model handles before it is the other's turn: their time is one measurement.
constexpr std::size_t kTurn = 64;

std::vector<double> parse_stages(const std::string& text) {
  std::vector<double> stages;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    std::string word = text.substr(at, comma - at);
    if (!word.empty() && word.back() == '%') word.pop_back();
    char* end = nullptr;
    const double percent = std::strtod(word.c_str(), &end);
    const double before = stages.empty() ? 0.0 : stages.back();
    if (word.empty() || *end != '\0' || !(percent > before && percent <= 100.0)) {
      throw Error(ExitCode::kUsage,
                  fmt::format("--stages {}: {} is no rising share of the traffic", quote_text(text),
                              quote_text(word)),
                  "write rising percentages up to 100, such as 1,5,25,100");
    }
    stages.push_back(percent);
    at = comma + 1;
  }
  return stages;
}

// One of the two models with the traffic as it sees it.
struct Side {
  const char* flag = "";
  BaseModel base;
  std::string adapter;
  Dataset data;
  std::vector<EvalItem> items;  // of data.examples
  std::vector<std::vector<std::int32_t>> choices;
  std::unique_ptr<DeepSeekModel> model;
  std::unique_ptr<Evaluator> evaluator;
};

class Canary {
 public:
  Canary(const CanarySettings& settings, cli::Run& run)
      : settings_(settings), run_(run), stages_(parse_stages(settings.stages)) {
    std::vector<std::string> texts = settings.gates;
    if (texts.empty()) texts.emplace_back("loss_increase<=0.02");
    for (const std::string& text : texts) gates_.push_back(parse_gate(text));
    const auto any = [this](bool (*needs)(const Gate&)) {
      return std::any_of(gates_.begin(), gates_.end(), needs);
    };
    answers_ = any(needs_answers);
    choices_ = any(needs_choices);
    if (answers_ && choices_) {
      throw Error(ExitCode::kUsage,
                  "gates on answers and gates on choices cannot be combined: a row has one verdict",
                  "run two canaries");
    }
    // Latency alone is that of a forward pass.
    losses_ = any(needs_loss) || (!answers_ && !choices_);
  }

  void execute() {
    open(baseline_, "--baseline", settings_.baseline, settings_.baseline_adapter);
    open(candidate_, "--candidate", settings_.candidate, settings_.candidate_adapter);
    pair_rows();
    CanaryState state;
    state.identity = identity();
    if (!settings_.state.empty()) state = load_state(settings_.state, state.identity);
    if (!state.rows.empty()) run_.info(fmt::format("{} rows are known already", state.rows.size()));
    std::vector<CanaryStage> done;
    for (std::size_t i = 0; i < stages_.size() && stages_[i] <= settings_.until; ++i) {
      const auto wanted = static_cast<std::size_t>(
          std::ceil(static_cast<double>(order_.size()) * stages_[i] / 100.0));
      evaluate(state.rows, wanted);
      if (!settings_.state.empty()) save_state(settings_.state, state);
      done.push_back(
          judge_stage(stages_[i], std::span(state.rows).first(wanted), i + 1 == stages_.size()));
      run_.progress_clear();
      run_.event("deepseek/canary-stage/1", stage_json(done.back()));
      if (!done.back().passed()) break;
    }
    if (done.empty()) {
      throw Error(ExitCode::kUsage, fmt::format("--until {:g} is before the first of --stages {}",
                                                settings_.until, settings_.stages));
    }
    report(done);
  }

 private:
  void open(Side& side, const char* flag, const std::string& name, const std::string& adapter) {
    side.flag = flag;
    side.base = open_base_model(name, cli::model_search_paths());
    side.adapter = adapter;
    std::string said;
    DatasetOptions options;
    for (const std::string& file : settings_.dataset) options.files.emplace_back(file);
    options.chat_template = choose_template(settings_.chat_template, side.base, said);
    if (!said.empty()) run_.warn(said);
    options.thinking = settings_.thinking;
    options.cutoff_len = settings_.cutoff_len;
    options.vocab_size = side.base.config.vocab_size;
    side.data = load_dataset(options, side.base.tokenizer ? &*side.base.tokenizer : nullptr);
    for (const Example& example : side.data.examples) {
      side.items.push_back(split_item(example, side.base.config.eos_token_ids));
    }
    if (choices_) side.choices = distinct_answers(side.items);
  }

  // Rows that both have, in one random order: a slice is a sample of the traffic.
  void pair_rows() {
    std::map<std::pair<std::int32_t, std::int64_t>, std::size_t> there;
    for (std::size_t i = 0; i < candidate_.data.examples.size(); ++i) {
      const Example& example = candidate_.data.examples[i];
      there.emplace(std::pair(example.file, example.line), i);
    }
    for (std::size_t i = 0; i < baseline_.data.examples.size(); ++i) {
      const Example& example = baseline_.data.examples[i];
      const auto found = there.find(std::pair(example.file, example.line));
      if (found != there.end()) order_.emplace_back(i, found->second);
    }
    const std::size_t lost =
        baseline_.data.examples.size() + candidate_.data.examples.size() - 2 * order_.size();
    if (order_.empty()) {
      throw Error(ExitCode::kBadInput, "no row of the dataset is usable for both models");
    }
    if (lost > 0) run_.warn(fmt::format("{} rows are usable for one model only: left out", lost));
    const Rng rng(static_cast<std::uint64_t>(settings_.seed), 0x63616e617279);
    for (std::size_t i = order_.size() - 1; i > 0; --i) {
      std::swap(order_[i], order_[rng.bits(i) % (i + 1)]);
    }
  }

  std::map<std::string, std::string> identity() const {
    const auto model = [](const Side& side) {
      std::string text = model_fingerprint(side.base.folder, Checkpoint::open(side.base.folder));
      if (!side.adapter.empty()) {
        const std::filesystem::path folder = side.adapter;
        text += sha256_file(folder / "adapter_config.json") +
                sha256_file(folder / "adapter_model.safetensors");
      }
      return sha256(text).substr(0, 16);
    };
    std::string data;
    for (const std::string& file : settings_.dataset) data += sha256_file(file);
    return {{"baseline", model(baseline_)},
            {"candidate", model(candidate_)},
            {"dataset", sha256(data).substr(0, 16)},
            {"measurement",
             fmt::format("losses {} answers {} choices {} template {} thinking {} cutoff {} "
                         "tokens {} dtype {} seed {}",
                         losses_, answers_, choices_, settings_.chat_template, settings_.thinking,
                         settings_.cutoff_len, settings_.max_new_tokens, settings_.dtype,
                         settings_.seed)}};
  }

  // Grows `rows` to `wanted`.
  void evaluate(std::vector<PairedRow>& rows, std::size_t wanted) {
    while (rows.size() < wanted) {
      const std::size_t first = rows.size();
      const std::size_t last = std::min(wanted, first + kTurn);
      rows.resize(last);
      try {
        turn(baseline_, first, last, rows, &PairedRow::baseline);
        turn(candidate_, first, last, rows, &PairedRow::candidate);
      } catch (...) {
        rows.resize(first);
        throw;
      }
      run_.progress(fmt::format("{} of {} rows", last, order_.size()),
                    static_cast<double>(last) / static_cast<double>(order_.size()));
    }
  }

  void turn(Side& side, std::size_t first, std::size_t last, std::vector<PairedRow>& rows,
            RowOutcome PairedRow::*member) {
    if (!side.evaluator) load(side);
    const auto begun = std::chrono::steady_clock::now();
    std::vector<Example> examples;
    std::vector<EvalItem> items;
    for (std::size_t i = first; i < last; ++i) {
      const std::size_t at = &side == &baseline_ ? order_[i].first : order_[i].second;
      examples.push_back(side.data.examples[at]);
      items.push_back(side.items[at]);
    }
    const auto outcome = [&](std::size_t i) -> RowOutcome& { return rows[first + i].*member; };
    if (losses_) {
      const auto losses = side.evaluator->losses(examples, {});
      for (std::size_t i = 0; i < losses.size(); ++i) {
        outcome(i).loss_sum = losses[i].sum;
        outcome(i).targets = losses[i].targets;
      }
    }
    if (answers_) {
      const auto answers =
          side.evaluator->answers(items, settings_.max_new_tokens, settings_.batch_size, {});
      for (std::size_t i = 0; i < answers.size(); ++i) {
        outcome(i).tokens = answers[i].tokens;
        outcome(i).refused = looks_like_refusal(answers[i].text);
        note(outcome(i), answers[i].text, side.evaluator->text_of(items[i].answer));
      }
    }
    if (choices_) {
      const auto chosen = side.evaluator->choose(items, side.choices, {});
      for (std::size_t i = 0; i < chosen.size(); ++i) {
        note(outcome(i), side.evaluator->text_of(side.choices[chosen[i]]),
             side.evaluator->text_of(items[i].answer));
      }
    }
    outcome(0).seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  }

  static void note(RowOutcome& outcome, const std::string& answer, const std::string& reference) {
    outcome.correct = answer == reference;
    outcome.answer = sha256(answer).substr(0, 16);  // only whether two are equal matters
  }

  void load(Side& side) {
    std::size_t longest = 1;
    for (const Example& example : side.data.examples) {
      longest = std::max(longest, example.ids.size());
    }
    const auto positions = static_cast<std::int64_t>(longest);
    side.model = load_with_adapter(side.base, side.adapter,
                                   settings_.dtype == "bf16" ? DType::kBF16 : DType::kF32,
                                   positions + std::max(settings_.max_new_tokens, positions + 1));
    side.evaluator = std::make_unique<Evaluator>(side.base, *side.model, run_.threads());
  }

  CanaryStage judge_stage(double percent, std::span<const PairedRow> rows, bool last) const {
    CanaryStage stage{percent, rows.size(), {}, metrics(rows)};
    for (const Gate& gate : gates_) {
      GateResult result{gate, measure(gate.metric, rows), Verdict::kUndecided, false, 0};
      result.verdict = judge(gate, result.measured);
      result.passed =
          result.verdict == Verdict::kPassed ||
          (result.verdict == Verdict::kUndecided && (!last || settings_.undecided == "pass"));
      if (result.verdict == Verdict::kUndecided) {
        result.rows_needed = rows_needed(gate, result.measured, rows.size());
      }
      stage.gates.push_back(std::move(result));
    }
    return stage;
  }

  nlohmann::json metrics(std::span<const PairedRow> rows) const {
    const auto side = [&](const RowOutcome PairedRow::*member) {
      double loss = 0.0, targets = 0.0, correct = 0.0, refused = 0.0, tokens = 0.0, seconds = 0.0;
      for (const PairedRow& row : rows) {
        const RowOutcome& o = row.*member;
        loss += o.loss_sum;
        targets += o.targets;
        correct += o.correct ? 1.0 : 0.0;
        refused += o.refused ? 1.0 : 0.0;
        tokens += static_cast<double>(o.tokens);
        seconds += o.seconds;
      }
      const auto n = static_cast<double>(rows.size());
      nlohmann::json json{{"seconds_per_row", seconds / n}};
      if (losses_) json["loss"] = targets > 0.0 ? loss / targets : 0.0;
      if (answers_) {
        json["exact_match"] = correct / n;
        json["refusals"] = refused / n;
        json["answer_tokens"] = tokens / n;
      }
      if (choices_) json["choice"] = correct / n;
      return json;
    };
    nlohmann::json json{{"baseline", side(&PairedRow::baseline)},
                        {"candidate", side(&PairedRow::candidate)}};
    if (answers_ || choices_) json["agreement"] = measure(GateMetric::kAgreement, rows).value;
    return json;
  }

  void report(const std::vector<CanaryStage>& done) {
    const bool passed = done.back().passed();
    const bool complete = passed && done.size() == stages_.size();
    nlohmann::json json{{"stages", nlohmann::json::array()},
                        {"passed", passed},
                        {"complete", complete},
                        {"rows", order_.size()}};
    std::string text;
    for (const CanaryStage& stage : done) {
      json["stages"].push_back(stage_json(stage));
      text += stage_text(stage);
    }
    text += !passed    ? "stop: the candidate must not take more traffic\n"
            : complete ? "all stages passed\n"
                       : fmt::format("go on: next is {:g} %\n", stages_[done.size()]);
    run_.product(run_.format() == "junit" ? canary_junit(done) : text, json);
    run_.conclude(passed ? ExitCode::kDone : ExitCode::kFindings);
  }

  const CanarySettings& settings_;
  cli::Run& run_;
  std::vector<double> stages_;
  std::vector<Gate> gates_;
  bool losses_ = false, answers_ = false, choices_ = false;
  Side baseline_, candidate_;
  std::vector<std::pair<std::size_t, std::size_t>> order_;  // rows of both sides
};

}  // namespace

void run_canary(const CanarySettings& settings, cli::Run& run) {
  if (run.format() == "sarif") {
    throw Error(ExitCode::kUsage, "--format sarif is for findings; a canary has text, json, junit");
  }
  Canary(settings, run).execute();
}

}  // namespace ds::check
