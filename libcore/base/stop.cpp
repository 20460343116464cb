#include "libcore/base/stop.h"

#include <atomic>
#include <csignal>

namespace ds {
namespace {

std::atomic<bool> stop_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free,
              "a signal handler may only use lock-free atomics");

extern "C" void on_stop_signal(int signal_number) {
  if (!stop_flag.exchange(true)) return;
  // The signal is blocked while we are here; the default action happens on return.
  std::signal(signal_number, SIG_DFL);
  std::raise(signal_number);
}

void install(int signal_number) {
  struct sigaction action {};
  if (sigaction(signal_number, nullptr, &action) != 0 || action.sa_handler == SIG_IGN) return;
  action = {};
  action.sa_handler = on_stop_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(signal_number, &action, nullptr);
}

}  // namespace

void install_stop_handlers() {
  static const bool installed = [] {
    install(SIGINT);
    install(SIGTERM);
    return true;
  }();
  (void)installed;
}

bool stop_requested() { return stop_flag.load(std::memory_order_relaxed); }
void request_stop() { stop_flag.store(true); }
void clear_stop() { stop_flag.store(false); }

}  // namespace ds
