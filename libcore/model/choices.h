// How likely a model finds each of some given answers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "libcore/model/deepseek.h"

namespace ds {

// Sum over a choice's tokens of -log p(token | prompt, tokens before), [prompts][choices]. A prompt
// passes the model once; each choice goes on from its cache. Choices may be of any length (0: the
// sum is 0); prompts hold at least one token.
std::vector<std::vector<double>> choice_losses(DeepSeekModel& model, Exec& exec,
                                               std::span<const std::vector<std::int32_t>> prompts,
                                               std::span<const std::vector<std::int32_t>> choices);

}  // namespace ds
