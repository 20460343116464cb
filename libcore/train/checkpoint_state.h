// checkpoint-N/: everything a run needs to go on as if it had never stopped
// (reference/training.md section 10).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "libcore/nn/parameter.h"
#include "libcore/optim/optimizer.h"

namespace ds {

// What must be the same for a resumed run to continue this one.
struct RunIdentity {
  std::string model_digest;  // SHA-256 over config.json and every tensor's name, dtype, shape, file
  std::string dataset_digest;  // SHA-256 over the dataset files
  std::map<std::string, std::string>
      settings;  // name -> value of every setting that changes results
};

// Where a run stands, between two updates.
struct RunPosition {
  std::int64_t step = 0;  // finished updates
  std::int64_t total_steps = 0;
  std::int64_t stage = 1;  // of the next update, from 1
  std::int64_t epoch = 0;  // of the stage's data
  std::int64_t row = 0;    // next position in the epoch's order
  double loss_ema = 0.0;
  std::vector<double> importance;  // LayerSelection::importance(); empty without one
};

// Writes OUTPUT/checkpoint-STEP: the adapter (through `save_weights`, which writes into the folder
// it is given), optimizer.safetensors, state.json ("deepseek/checkpoint-state/1") with position,
// identity, the SHA-256 of every other file and one of itself. Equal states give equal bytes. The
// folder is made as .checkpoint-STEP.tmp-PID, flushed and renamed: a kill at any moment leaves
// either no checkpoint-STEP or a whole one; one that exists already is replaced. Then deletes all
// but the newest `keep` whole checkpoints, never the one just written (keep <= 0: none); each is
// renamed away first. Throws Error(kIo), what save_weights throws, and Error(kFindings) naming a
// parameter whose moments are not finite; earlier checkpoints are untouched by a failure.
std::filesystem::path save_checkpoint(
    const std::filesystem::path& output, const RunPosition& position, const RunIdentity& identity,
    Optimizer& optimizer, const std::function<void(const std::filesystem::path&)>& save_weights,
    std::int64_t keep);

// Newest whole checkpoint of an output folder; empty path when there is none (or no such folder).
// Folders that fail their digests are skipped and described in `skipped` ("checkpoint-20: ...").
std::filesystem::path find_latest_checkpoint(const std::filesystem::path& output,
                                             std::vector<std::string>& skipped);

// Verifies digests and identity and loads moments and counts into `optimizer`; weights are the
// caller's to load from the same folder, afterwards. Throws Error(kBadInput) naming the missing,
// changed or truncated file, or what differs (other model, other dataset, setting NAME was A, is
// B); the optimizer is unchanged then.
RunPosition load_checkpoint(const std::filesystem::path& folder, const RunIdentity& identity,
                            Optimizer& optimizer);

// Removes what killed runs left in an output folder (temporary and half-deleted checkpoints of
// processes that no longer live) and puts back a checkpoint that was being replaced. Returns the
// names of the folders removed. Call once, before the first save. Throws Error(kIo).
std::vector<std::string> remove_stale_checkpoints(const std::filesystem::path& output);

}  // namespace ds
