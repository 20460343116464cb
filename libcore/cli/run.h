// What a running subcommand talks through: words, product, events, progress.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "libcore/base/error.h"

namespace ds::cli {

// One per process, made by run_main. stdout carries the product only, stderr words for people, the
// report file JSON lines (design rule 8).
class Run {
 public:
  virtual ~Run() = default;
  // Words on stderr, by --quiet / --log_level. A warning begins with "warning: ".
  virtual void info(const std::string& text) = 0;
  virtual void warn(const std::string& text) = 0;
  // The live line, on a terminal only (or --progress always), rate-limited; share in [0, 1].
  virtual void progress(const std::string& text, double share) = 0;
  virtual void progress_clear() = 0;
  // The product on stdout: `text` with --format text, `json` (one document) with --format json.
  virtual void product(const std::string& text, const nlohmann::json& json) = 0;
  virtual bool json_output() const = 0;
  virtual std::string format() const = 0;  // as given with --format
  virtual bool color_output() const = 0;   // --color, auto: stdout is a terminal
  // The exit code of a run that ends without an error: kDone when not called.
  virtual void conclude(ExitCode code) = 0;
  // Streamed text product, flushed at once.
  virtual void write_stdout(std::string_view text) = 0;
  // An event to every open report: --report FILE and the ones opened below; schema, seq and t are
  // added.
  virtual void event(const std::string& schema, nlohmann::json fields) = 0;
  // Names an input for the run line of the reports (path, size, SHA-256). Before the first event.
  virtual void input(const std::filesystem::path& path) = 0;
  // Opens one more report file (the output folder's), beginning with a run line; `append` continues
  // an existing file. Events so far are written to it first.
  virtual void open_report(const std::filesystem::path& path, bool append) = 0;
  virtual int threads() const = 0;
  virtual std::string command_line() const = 0;  // as typed, quoted for a shell
  virtual std::string version() const = 0;
};

}  // namespace ds::cli
