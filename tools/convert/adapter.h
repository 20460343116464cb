// deepseek-convert adapter: an adapter in another layout.
#pragma once

#include "libcore/cli/run.h"
#include "tools/convert/output_folder.h"

namespace ds::convert {

struct AdapterSettings {
  std::string input;
  OutputSettings out;
  std::string to;     // peft, peft_fused, gguf_lora
  std::string model;  // empty: what the adapter's own files say
};

void run_adapter(const AdapterSettings& settings, cli::Run& run);

}  // namespace ds::convert
