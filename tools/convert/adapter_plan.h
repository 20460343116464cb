// What an adapter consists of in each layout.
#pragma once

#include "tools/convert/adapter_folder.h"
#include "tools/convert/output_folder.h"

namespace ds::convert {

// Tensors by expert, two dimensions each. A gate_up tensor over fused experts gives gate and up its
// rank with one A, or half of it where B is block-diagonal, as peft converts per-expert files.
// `modules` are the model's. Notes on what some PEFT will not load go to `run`.
OutputPlan plan_peft(const AdapterFolder& adapter, const std::vector<ModuleInfo>& modules,
                     cli::Run& run);

// Tensors over the fused experts of transformers 5 (reference/formats.md 7.4): gate and up of an
// expert share one rank when their A are the same, and have one each otherwise. Experts without
// tensors of their own get zeros. A scaling that the fused tensor cannot say goes into B. Throws
// Error(kBadInput) for an adapter without routed experts, and for DoRA on them.
OutputPlan plan_peft_fused(const AdapterFolder& adapter, const std::vector<ModuleInfo>& modules,
                           cli::Run& run);

// A GGUF adapter for llama.cpp: OUTPUT when that ends in .gguf, else a file in the folder OUTPUT.
// Experts are stacked, kv_b_proj is split per head. One alpha for all: other scalings go into B.
// Throws Error(kBadInput) for DoRA and whole weights; warns of modules that llama.cpp ignores.
OutputPlan plan_gguf_lora(const AdapterFolder& adapter, const ModelConfig& config,
                          const std::string& output, cli::Run& run);

}  // namespace ds::convert
