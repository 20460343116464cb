#include "tools/convert/weights.h"

#include <fmt/format.h>

#include "libcore/base/error.h"
#include "libcore/cli/environment.h"
#include "libcore/config/inference_names.h"
#include "tools/convert/gguf_plan.h"
#include "tools/convert/hf_plan.h"
#include "tools/convert/inference_plan.h"

namespace ds::convert {

namespace {

// Flags that mean something for one --to only.
void check_flags(const WeightsSettings& s) {
  const auto only_with = [&s](bool given, const char* flag, const std::string& to) {
    if (given && s.to != to) {
      throw Error(ExitCode::kUsage,
                  fmt::format("{} goes with --to {}, not --to {}", flag, to, s.to));
    }
  };
  only_with(s.mp != 1, "--mp", "inference");
  only_with(s.scale_fmt != "auto", "--scale_fmt", "fp8");
  only_with(s.scale_dtype != "f32", "--scale_dtype", "fp8");
  only_with(!s.reuse_scales_from.empty(), "--reuse_scales_from", "fp8");
  only_with(s.allow_overflow && s.to != "gguf", "--allow_overflow", "f16");
  only_with(s.gguf_type != "bf16", "--gguf_type", "gguf");
  only_with(s.mla != "split", "--mla", "gguf");
  if (s.to == "gguf" && s.mtp == "keep") {
    throw Error(ExitCode::kUsage, "--mtp keep does not go with --to gguf",
                "llama.cpp has no place for multi-token-prediction layers: they are left out");
  }
  if ((s.scale_fmt != "auto" || s.scale_dtype != "f32") && !s.reuse_scales_from.empty()) {
    throw Error(ExitCode::kUsage, "--reuse_scales_from excludes --scale_fmt and --scale_dtype",
                "the scales are taken as they are");
  }
}

}  // namespace

void run_weights(const WeightsSettings& settings, cli::Run& run) {
  check_flags(settings);
  if (is_gguf(settings.input)) {
    if (settings.to != "hf") {
      throw Error(ExitCode::kUsage,
                  fmt::format("a GGUF file goes with --to hf, not --to {}", settings.to),
                  "convert it to a checkpoint folder first");
    }
    const GgufModel model = GgufModel::open(settings.input);
    write_output(settings.out, plan_gguf_import(model, settings, run), run);
    return;
  }
  if (settings.to == "hf") {
    const auto folder = find_model(settings.input, cli::model_search_paths());
    if (is_inference_folder(folder)) {
      const InferenceSource source = open_inference(folder);
      write_output(settings.out, plan_from_inference(source, settings, run), run);
      return;
    }
  }
  const Source source = open_source(settings.input, run);
  if (settings.to == "gguf") {
    write_output(settings.out, plan_gguf_export(source, settings, run), run);
    return;
  }
  write_output(settings.out,
               settings.to == "inference" ? plan_to_inference(source, settings, run)
                                          : plan_hf(source, settings, run),
               run);
}

}  // namespace ds::convert
