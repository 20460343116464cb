// Text generation over the latent cache, several sequences at once.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "libcore/model/deepseek.h"

namespace ds {

struct GenerateOptions {
  std::int64_t max_new_tokens = 64;
  double temperature = 0.0;  // 0: greedy, ties to the lowest id
  double top_p = 1.0;
  std::uint64_t seed = 42;
  std::vector<std::int64_t> stop_ids;  // end-of-sentence ids
  std::int64_t vocab_limit = 0;        // ids at or above are never chosen (padding rows); 0: none
};

struct Generated {
  std::vector<std::int32_t> ids;  // without the stop token
  bool stopped = false;           // a stop token ended it
};

// One result a prompt, in order. Prompts are run `batch` at a time; each finished sequence leaves
// the batch. `on_token` (may be empty) sees (prompt index, token) as they come; returning false
// stops everything. The result of a prompt does not depend on the others beyond rounding.
std::vector<Generated> generate(DeepSeekModel& model, Exec& exec,
                                const std::vector<std::vector<std::int32_t>>& prompts,
                                const GenerateOptions& options, std::int64_t batch,
                                const std::function<bool(std::size_t, std::int32_t)>& on_token);

}  // namespace ds
