// Reading the data of a checkpoint.
#pragma once

#include <cstdint>
#include <functional>

#include "libcore/check/checkpoint_target.h"
#include "libcore/check/expected_tensors.h"
#include "libcore/check/finding.h"

namespace ds::check {

struct DeepOptions {
  int threads = 1;
  // Called now and then from one of the threads with the bytes read and all there are.
  std::function<void(std::uint64_t, std::uint64_t)> progress;
};

// Every tensor once, by all threads, in bounded memory. Throws what
// read_stretches does, also Error(kInterrupted) when a stop was asked for.
void check_data(const CheckpointTarget& target, const TensorSurvey& survey,
                const DeepOptions& options, Findings& findings);
// The same for one file: whether its values are finite.
void check_data(const SafetensorsFile& file, const DeepOptions& options, Findings& findings);

}  // namespace ds::check
