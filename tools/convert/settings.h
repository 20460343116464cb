// What the flags of deepseek-convert say.
#pragma once

#include <string>

#include "tools/convert/output_folder.h"

namespace ds::convert {

struct WeightsSettings {
  std::string input;
  OutputSettings out;
  std::string to;
  int mp = 1;
  std::string scale_fmt = "auto";
  std::string scale_dtype = "f32";
  std::string reuse_scales_from;
  std::string mtp = "auto";
  std::string max_shard_size = "5GB";
  bool allow_overflow = false;
  std::string gguf_type = "bf16";
  std::string mla = "split";
};

}  // namespace ds::convert
