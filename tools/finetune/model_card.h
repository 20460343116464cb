// README.md of an output folder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "libcore/config/lora_config.h"

namespace ds::finetune {

struct ModelCard {
  std::string base;     // as given on the command line
  std::string method;   // "LoRA+, r 8, alpha 16, ..."
  std::string command;  // the whole command line
  std::string version;
  std::vector<std::string> datasets;
  std::int64_t rows = 0;
  std::int64_t steps = 0;
  std::int64_t target_tokens = 0;  // learned from, over the whole run
  double first_loss = 0.0;
  double final_loss = 0.0;
  double eval_loss = -1.0;  // negative: no evaluation
  std::int64_t trainable = 0;
  double trainable_share = 0.0;
  bool full = false;
};

// Markdown with the front matter that model hubs read. Says base, data, method, figures, command.
std::string model_card_text(const ModelCard& card);

}  // namespace ds::finetune
