#include "libcore/model/generate.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "libcore/base/rng.h"

namespace ds {

namespace {

std::int32_t argmax(const float* logits, std::int64_t count) {
  return static_cast<std::int32_t>(std::max_element(logits, logits + count) - logits);
}

// Nucleus sampling; `draw` is uniform in [0, 1).
std::int32_t sample(const float* logits, std::int64_t count, const GenerateOptions& options,
                    double draw) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [logits](std::int32_t a, std::int32_t b) { return logits[a] > logits[b]; });
  const double top = logits[order[0]];
  std::vector<double> weights;
  double total = 0.0;
  for (const std::int32_t id : order) {
    weights.push_back(std::exp((logits[id] - top) / options.temperature));
    total += weights.back();
  }
  double kept = 0.0;
  std::size_t n = 0;
  while (n < weights.size() && (n == 0 || kept < options.top_p * total)) kept += weights[n++];
  double rest = draw * kept;
  for (std::size_t i = 0; i < n; ++i) {
    rest -= weights[i];
    if (rest < 0.0) return order[i];
  }
  return order[n - 1];
}

struct Active {
  std::size_t prompt = 0;
  std::unique_ptr<Sequence> sequence;
  std::int32_t next = 0;
};

}  // namespace

std::vector<Generated> generate(DeepSeekModel& model, Exec& exec,
                                const std::vector<std::vector<std::int32_t>>& prompts,
                                const GenerateOptions& options, std::int64_t batch,
                                const std::function<bool(std::size_t, std::int32_t)>& on_token) {
  const std::int64_t vocab = model.config().vocab_size;
  const std::int64_t choices =
      options.vocab_limit > 0 ? std::min(options.vocab_limit, vocab) : vocab;
  std::vector<Generated> results(prompts.size());
  bool stopped = false;

  // Takes the next token of one sequence from its logits; false when the sequence is finished.
  const auto advance = [&](Active& active, const float* logits) {
    Generated& result = results[active.prompt];
    std::int32_t token = 0;
    if (options.temperature <= 0.0) {
      token = argmax(logits, choices);
    } else {
      const Rng rng(options.seed,
                    mix_stream(static_cast<std::uint64_t>(RngStream::kSampling), active.prompt));
      token = sample(logits, choices, options, rng.uniform(result.ids.size()));
    }
    const auto& stops = options.stop_ids;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
      result.stopped = true;
      return false;
    }
    result.ids.push_back(token);
    active.next = token;
    if (on_token && !on_token(active.prompt, token)) stopped = true;
    return static_cast<std::int64_t>(result.ids.size()) < options.max_new_tokens;
  };

  for (std::size_t first = 0; first < prompts.size() && !stopped;
       first += static_cast<std::size_t>(batch)) {
    const std::size_t count = std::min(static_cast<std::size_t>(batch), prompts.size() - first);
    TokenBatch tokens;
    std::vector<Active> active;
    std::vector<Sequence*> sequences;
    for (std::size_t i = 0; i < count; ++i) {
      const auto& prompt = prompts[first + i];
      Example example{.ids = prompt, .labels = std::vector<std::int32_t>(prompt.size(), kNoTarget)};
      append_segment(tokens, example);
      const auto capacity = static_cast<std::int64_t>(prompt.size()) + options.max_new_tokens;
      active.push_back(
          {first + i, std::make_unique<Sequence>(model.config(), capacity, exec.dtype), 0});
      sequences.push_back(active.back().sequence.get());
    }
    Tensor logits(exec.statistics(), {static_cast<std::int64_t>(count), vocab});
    model.prefill(exec, tokens, sequences, logits.view());
    while (!active.empty() && !stopped) {
      std::vector<Active> rest;
      for (std::size_t i = 0; i < active.size() && !stopped; ++i) {
        const float* row = logits.as<float>() + static_cast<std::int64_t>(i) * vocab;
        if (options.max_new_tokens > 0 && advance(active[i], row)) {
          rest.push_back(std::move(active[i]));
        }
      }
      active = std::move(rest);
      if (active.empty() || stopped) break;
      sequences.clear();
      std::vector<std::int32_t> next;
      for (const Active& a : active) {
        sequences.push_back(a.sequence.get());
        next.push_back(a.next);
      }
      const View part = logits.view().slice_rows(0, static_cast<std::int64_t>(active.size()));
      model.decode(exec, next, sequences, part);
    }
  }
  return results;
}

}  // namespace ds
