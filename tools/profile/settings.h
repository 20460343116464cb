// What a user can set. Defaults are those of the command contract.
#pragma once

#include <cstdint>
#include <string>

namespace ds::profile {

// The work that is measured or counted.
struct WorkSettings {
  std::string model;  // folder or name
  std::string dtype = "f32";
  std::int64_t seq_len = 512;
  std::int64_t batch = 4;
  std::string peft_method = "auto";
  std::int64_t lora_r = 0;  // 0: 8
  std::string lora_target;  // empty: all
  std::string activation_checkpointing = "none";
};

struct LayersSettings {
  WorkSettings work;
  std::string input;  // text of every row; empty: random tokens
  std::string mode = "train";
  std::int64_t steps = 3;
  bool analytical = false;
  std::string convention = "causal";
  std::string kv_dtype = "bf16";
  bool mtp = false;
  std::string trace;  // file; empty: none
};

struct BenchSettings {
  WorkSettings work;
  std::string suite = "quick";
  std::string compare;  // JSON of an earlier run
  std::int64_t repeats = 7;
};

}  // namespace ds::profile
