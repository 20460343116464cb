// The measured steps as a trace that Chrome and Perfetto open.
#pragma once

#include <string>

#include "libcore/base/atomic_write.h"
#include "tools/profile/recorder.h"
#include "tools/profile/roofline.h"

namespace ds::profile {

// Steps are recorded while fewer spans than this are kept (a file of about 300 MB).
inline constexpr std::size_t kMostSpans = std::size_t{1} << 20;

// The Trace Event Format's JSON object (reference/cost-model.md section 17). One track: steps, in
// them phases, layers, their parts, ops, each a complete event ("X") with FLOPs, bytes, achieved
// rates and what binds (Rating; a rate above the peak is flagged and absent); times in microseconds
// since the first measured step began, with three decimals. Counters
// ("C") of live bytes: activations and workspace in all, and each by part. `title` names the
// process. Commits `file`; throws Error(kIo).
void write_trace(AtomicFile& file, const Recorder& recorder, const MachinePeaks& peaks,
                 const std::string& title);

}  // namespace ds::profile
