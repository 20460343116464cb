// A flag that SIGINT and SIGTERM set.
#pragma once

namespace ds {

// Installs handlers (once). The first signal sets the flag; a second one ends the process at once
// with that signal's default action. A signal that the parent process made us ignore (a background
// job of a script) stays ignored. Interrupted system calls are restarted.
void install_stop_handlers();
// Whether a stop was asked for. Safe to call from any thread.
bool stop_requested();
// For tests.
void request_stop();
void clear_stop();

}  // namespace ds
