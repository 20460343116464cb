// deepseek2 GGUF files from a checkpoint in Hugging Face layout, and back (reference/formats.md
// section 8, docs/gguf.md).
#pragma once

#include "libcore/io/gguf.h"
#include "tools/convert/output_folder.h"
#include "tools/convert/settings.h"
#include "tools/convert/source.h"

namespace ds::convert {

// --to gguf: every tensor of the model from its FP8, BF16, F16 or F32 values in the type of
// --gguf_type, F32 where llama.cpp wants that, F16 where rows are no multiple of Q8_0's 32; experts
// stacked; kv_b_proj by --mla; keys from config.json and the tokenizer's files. MTP layers are left
// out. An OUT that ends in .gguf is one file, else a folder with files of --max_shard_size. Says
// what is left out. Throws Error(kBadInput) naming every tensor that is missing, of the wrong shape
// or unknown.
OutputPlan plan_gguf_export(const Source& source, const WeightsSettings& settings, cli::Run& run);

// Whether `path` is a GGUF file, or a folder that holds one and no config.json.
bool is_gguf(const std::filesystem::path& path);

// --to hf of a deepseek2 file whose tensors are F32, F16, BF16 or Q8_0, in either MLA layout: HF
// names, dtypes and files, config.json, tokenizer.json where it can be rebuilt. Q8_0 becomes BF16.
// F32 tensors of a BF16 or F16 file go back to that dtype when no value changes by it (norms,
// router), the correction bias stays F32. Says what was guessed. `model` must outlive the plan.
OutputPlan plan_gguf_import(const GgufModel& model, const WeightsSettings& settings, cli::Run& run);

}  // namespace ds::convert
