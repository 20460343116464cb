#include "libcore/model/choices.h"

#include <algorithm>
#include <cmath>
#include <memory>

namespace ds {

namespace {

// Latent caches of the choices that go on together.
constexpr std::int64_t kCacheBytes = std::int64_t{256} << 20;

// A choice that still has tokens to be judged, after `done` of them.
struct Walk {
  std::size_t prompt;
  std::size_t choice;
  std::size_t done;
  std::unique_ptr<Sequence> sequence;
};

double element(const ConstView& row, std::int64_t i) {
  return row.dtype() == DType::kF64 ? row.as<double>()[i] : static_cast<double>(row.as<float>()[i]);
}

double log_sum_exp(const ConstView& row) {
  double top = element(row, 0);
  for (std::int64_t i = 1; i < row.cols(); ++i) top = std::max(top, element(row, i));
  double sum = 0.0;
  for (std::int64_t i = 0; i < row.cols(); ++i) sum += std::exp(element(row, i) - top);
  return top + std::log(sum);
}

// Adds the losses of all tokens after the first of each walk's choice.
void go_on(DeepSeekModel& model, Exec& exec, std::span<const std::vector<std::int32_t>> choices,
           std::span<Walk> walks, std::vector<std::vector<double>>& losses) {
  while (true) {
    std::vector<std::int32_t> tokens;
    std::vector<std::int32_t> targets;
    std::vector<Sequence*> sequences;
    std::vector<Walk*> live;
    for (Walk& walk : walks) {
      const auto& choice = choices[walk.choice];
      if (walk.done == choice.size()) {
        walk.sequence.reset();
        continue;
      }
      tokens.push_back(choice[walk.done - 1]);
      targets.push_back(choice[walk.done]);
      sequences.push_back(walk.sequence.get());
      live.push_back(&walk);
    }
    if (live.empty()) return;
    const std::vector<double> step = model.decode_losses(exec, tokens, sequences, targets);
    for (std::size_t i = 0; i < live.size(); ++i) {
      losses[live[i]->prompt][live[i]->choice] += step[i];
      ++live[i]->done;
    }
  }
}

}  // namespace

std::vector<std::vector<double>> choice_losses(DeepSeekModel& model, Exec& exec,
                                               std::span<const std::vector<std::int32_t>> prompts,
                                               std::span<const std::vector<std::int32_t>> choices) {
  std::vector<std::vector<double>> losses(prompts.size(), std::vector<double>(choices.size(), 0.0));
  if (prompts.empty()) return losses;
  TokenBatch batch;
  std::vector<std::unique_ptr<Sequence>> roots;
  std::vector<Sequence*> sequences;
  for (const auto& prompt : prompts) {
    append_segment(batch,
                   {.ids = prompt, .labels = std::vector<std::int32_t>(prompt.size(), kNoTarget)});
    roots.push_back(std::make_unique<Sequence>(
        model.config(), static_cast<std::int64_t>(prompt.size()), exec.dtype));
    sequences.push_back(roots.back().get());
  }
  Tensor logits(exec.statistics(),
                {static_cast<std::int64_t>(prompts.size()), model.config().vocab_size});
  model.prefill(exec, batch, sequences, logits.view(), true);

  // The first tokens of all choices are judged by the prompt's own logits.
  std::vector<Walk> walks;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    const ConstView row = std::as_const(logits).view().slice_rows(static_cast<std::int64_t>(p), 1);
    const double total = log_sum_exp(row);
    for (std::size_t c = 0; c < choices.size(); ++c) {
      if (choices[c].empty()) continue;
      losses[p][c] = total - element(row, choices[c][0]);
      if (choices[c].size() > 1) walks.push_back({p, c, 1, nullptr});
    }
  }
  // As many go on at once as their caches may take.
  const ModelConfig& config = model.config();
  const auto cache_bytes = [&](const Walk& walk) {
    const auto tokens =
        static_cast<std::int64_t>(prompts[walk.prompt].size() + choices[walk.choice].size());
    return tokens * config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim) *
           kernels::dtype_size(exec.dtype);
  };
  for (std::size_t first = 0; first < walks.size();) {
    std::size_t end = first;
    std::int64_t bytes = 0;
    while (end < walks.size() && (end == first || bytes + cache_bytes(walks[end]) <= kCacheBytes)) {
      Walk& walk = walks[end++];
      bytes += cache_bytes(walk);
      walk.sequence = std::make_unique<Sequence>(
          roots[walk.prompt]->branch(static_cast<std::int64_t>(choices[walk.choice].size())));
    }
    go_on(model, exec, choices, std::span(walks).subspan(first, end - first), losses);
    first = end;
  }
  return losses;
}

}  // namespace ds
