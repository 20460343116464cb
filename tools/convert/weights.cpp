#include "tools/convert/weights.h"

#include <fmt/format.h>

#include "libcore/base/error.h"
#include "libcore/cli/environment.h"
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
  only_with(s.allow_overflow, "--allow_overflow", "f16");
  if ((s.scale_fmt != "auto" || s.scale_dtype != "f32") && !s.reuse_scales_from.empty()) {
    throw Error(ExitCode::kUsage, "--reuse_scales_from excludes --scale_fmt and --scale_dtype",
                "the scales are taken as they are");
  }
}

}  // namespace

void run_weights(const WeightsSettings& settings, cli::Run& run) {
  check_flags(settings);
  if (settings.to == "hf") {
    const auto folder = find_model(settings.input, cli::model_search_paths());
    if (is_inference_folder(folder)) {
      const InferenceSource source = open_inference(folder);
      write_output(settings.out, plan_from_inference(source, settings, run), run);
      return;
    }
  }
  const Source source = open_source(settings.input, run);
  write_output(settings.out,
               settings.to == "inference" ? plan_to_inference(source, settings, run)
                                          : plan_hf(source, settings, run),
               run);
}

}  // namespace ds::convert
