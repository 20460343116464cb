#include "libcore/cli/console.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace ds::cli {

namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);

bool wanted(const std::string& when, bool automatic) {
  return when == "always" || (when == "auto" && automatic);
}

std::size_t terminal_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// Words for people: a stderr that is closed or full must not stop the work (fmt::print throws).
void put(const std::string& text) {
  if (std::fputs(text.c_str(), stderr) >= 0) std::fflush(stderr);
}

}  // namespace

Console::Console(std::string program, const Settings& settings)
    : program_(std::move(program)), level_(settings.level) {
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  const char* term = std::getenv("TERM");
  const bool dumb = term == nullptr || std::string(term) == "dumb";
  live_ = wanted(settings.progress, terminal && !dumb);
  color_ = wanted(settings.color, terminal && !dumb && std::getenv("NO_COLOR") == nullptr);
}

void Console::say(LogLevel level, const std::string& text) {
  if (level > level_) return;
  clear_progress();
  const bool warning = level == LogLevel::kWarn;
  const char* on = warning && color_ ? "\033[33m" : "";
  const char* off = warning && color_ ? "\033[0m" : "";
  put(fmt::format("{}{}{}{}\n", on, warning ? "warning: " : "", off, text));
}

void Console::error(const std::string& message, const std::string& hint) {
  clear_progress();
  std::fflush(stdout);
  put(fmt::format("{}: {}error:{} {}\n", program_, color_ ? "\033[31m" : "",
                  color_ ? "\033[0m" : "", message));
  if (!hint.empty()) put(fmt::format("  {}\n", hint));
}

void Console::progress(const std::string& text, double share) {
  if (!live_) return;
  const auto now = std::chrono::steady_clock::now();
  if (drawn_ && now - last_ < kRedraw) return;
  last_ = now;
  drawn_ = true;
  constexpr std::size_t kBar = 20;
  const auto filled = static_cast<std::size_t>(std::clamp(share, 0.0, 1.0) * kBar);
  std::string line = "[" + std::string(filled, '#') + std::string(kBar - filled, '.') + "] " + text;
  line.resize(std::min(line.size(), terminal_width() - 1));
  put("\r\033[K" + line);
}

void Console::clear_progress() {
  if (!drawn_) return;
  drawn_ = false;
  put("\r\033[K");
}

}  // namespace ds::cli
