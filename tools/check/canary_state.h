// What a canary has seen so far, on disk between the steps of a pipeline.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "libcore/eval/gate.h"

namespace ds::check {

struct CanaryState {
  // What must be the same for a later step to go on: name -> value.
  std::map<std::string, std::string> identity;
  std::vector<PairedRow> rows;  // in the order of the slices
};

// Atomically. Throws Error(kIo).
void save_state(const std::filesystem::path& path, const CanaryState& state);
// The rows of a state with this identity; none when the file is not there. Throws Error(kBadInput)
// for a file that is no state, or of other models, data or settings (named).
CanaryState load_state(const std::filesystem::path& path,
                       const std::map<std::string, std::string>& identity);

}  // namespace ds::check
