// Words and the live line on stderr.
#pragma once

#include <chrono>
#include <string>

namespace ds::cli {

enum class LogLevel { kError, kWarn, kInfo, kDebug };

// Everything a person reads goes through here, so that the progress line never mixes with it.
class Console {
 public:
  struct Settings {
    LogLevel level = LogLevel::kInfo;
    std::string progress = "auto";  // auto, always, never
    std::string color = "auto";
  };
  Console(std::string program, const Settings& settings);

  void say(LogLevel level, const std::string& text);
  // "PROGRAM: error: message" and the hint below it; always printed.
  void error(const std::string& message, const std::string& hint);
  // Redraws the live line at most ten times a second.
  void progress(const std::string& text, double share);
  void clear_progress();

 private:
  std::string program_;
  LogLevel level_;
  bool live_ = false;
  bool color_ = false;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace ds::cli
