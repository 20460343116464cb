#include "tools/finetune/model_card.h"

#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/format.h"

namespace ds::finetune {

namespace {

// A fence longer than any run of backticks inside keeps the block whole.
std::string fence_for(const std::string& text) {
  std::size_t longest = 0;
  std::size_t run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  return std::string(std::max<std::size_t>(3, longest + 1), '`');
}

std::string yaml_string(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace

std::string model_card_text(const ModelCard& card) {
  std::string text = "---\n";
  text += "base_model: " + yaml_string(card.base) + "\n";
  text += card.full ? "library_name: transformers\n" : "library_name: peft\n";
  text += "pipeline_tag: text-generation\ntags:\n- deepseek\n";
  if (!card.full) text += "- lora\n";
  text += "---\n\n";
  text += card.full ? "# Fine-tuned model\n\n" : "# Adapter\n\n";
  text += "| | |\n|---|---|\n";
  text += fmt::format("| base model | {} |\n", card.base);
  std::string data;
  for (const std::string& file : card.datasets) data += (data.empty() ? "" : ", ") + file;
  text += fmt::format("| data | {} ({} rows) |\n", data, format_count(card.rows));
  text += fmt::format("| method | {} |\n", card.method);
  text += fmt::format("| trained parameters | {} ({:.4f} % of the model) |\n",
                      format_count(card.trainable), 100.0 * card.trainable_share);
  text += fmt::format("| steps | {} |\n", format_count(card.steps));
  text += fmt::format("| target tokens learned from | {} |\n", format_count(card.target_tokens));
  text += fmt::format("| training loss, first and last step | {:.4f}, {:.4f} |\n", card.first_loss,
                      card.final_loss);
  if (card.eval_loss >= 0.0) {
    text += fmt::format("| held-out loss at the end | {:.4f} |\n", card.eval_loss);
  }
  const std::string fence = fence_for(card.command);
  text += fmt::format("\nMade with deepseek-finetune {}:\n\n{}sh\n{}\n{}\n", card.version, fence,
                      card.command, fence);
  if (!card.full) {
    text +=
        "\nLoad it with `PeftModel.from_pretrained(base, folder)`, with "
        "`deepseek-finetune generate --adapter folder`, or in a server that reads PEFT adapters.\n"
        "The losses say how well the training rows are fitted; they are no measure of quality.\n";
  }
  return text;
}

}  // namespace ds::finetune
