#include "libcore/io/text_window.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/base/stop.h"

namespace ds {
namespace {

// Small enough for what was read to be in a core's own cache when it is looked at.
constexpr std::size_t kChunk = 256u << 10;
// How often a wait for a pipe looks at the stop flag.
constexpr int kWaitMilliseconds = 100;

[[noreturn]] void fail(const std::string& name, const std::string& reason) {
  throw Error(ExitCode::kIo, name + ": cannot be read: " + reason,
              "check that the path is right and that you may read it");
}

}  // namespace

TextWindow::TextWindow(const std::filesystem::path& path) : name_(path.string()), owned_(true) {
  do {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  } while (descriptor_ < 0 && errno == EINTR && !stop_requested());
  if (descriptor_ < 0) fail(name_, std::strerror(errno));
  struct stat info {};
  if (::fstat(descriptor_, &info) != 0 || S_ISDIR(info.st_mode)) {
    const std::string reason = S_ISDIR(info.st_mode) ? "it is a folder" : std::strerror(errno);
    close();
    fail(name_, reason);
  }
  waits_ = !S_ISREG(info.st_mode);
  if (!waits_) total_ = static_cast<std::size_t>(info.st_size);
}

TextWindow::TextWindow(int descriptor, std::string name)
    : name_(std::move(name)), descriptor_(descriptor) {
  struct stat info {};
  if (::fstat(descriptor_, &info) != 0) fail(name_, std::strerror(errno));
  if (S_ISDIR(info.st_mode)) fail(name_, "it is a folder");
  waits_ = !S_ISREG(info.st_mode);
  if (!waits_) total_ = static_cast<std::size_t>(info.st_size);
}

TextWindow::TextWindow(std::string_view text) : ended_(true), view_(text), total_(text.size()) {}

TextWindow::~TextWindow() { close(); }

TextWindow::TextWindow(TextWindow&& other) noexcept { *this = std::move(other); }

TextWindow& TextWindow::operator=(TextWindow&& other) noexcept {
  if (this == &other) return *this;
  close();
  name_ = std::move(other.name_);
  descriptor_ = std::exchange(other.descriptor_, -1);
  owned_ = std::exchange(other.owned_, false);
  waits_ = other.waits_;
  ended_ = std::exchange(other.ended_, true);
  buffer_ = std::move(other.buffer_);
  capacity_ = std::exchange(other.capacity_, 0);
  view_ = std::exchange(other.view_, {});
  base_ = other.base_;
  total_ = other.total_;
  return *this;
}

void TextWindow::close() noexcept {
  if (owned_ && descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

// A signal handler restarts a blocked read, so that only a wait of our own notices a stop.
void TextWindow::wait() {
  while (true) {
    if (stop_requested()) throw Error(ExitCode::kInterrupted, "stopped while reading " + name_);
    pollfd poll{descriptor_, POLLIN, 0};
    const int ready = ::poll(&poll, 1, kWaitMilliseconds);
    if (ready > 0 || (ready < 0 && errno != EINTR)) return;
  }
}

void TextWindow::make_room() {
  const std::size_t begin =
      buffer_ ? static_cast<std::size_t>(view_.data() - buffer_.get()) : capacity_;
  if (buffer_ && capacity_ - begin - view_.size() >= kChunk) return;
  if (buffer_ && capacity_ - view_.size() >= kChunk) {
    std::memmove(buffer_.get(), view_.data(), view_.size());
  } else {
    const std::size_t capacity = std::max(2 * capacity_, 2 * kChunk);
    std::unique_ptr<char[]> larger(new char[capacity]);
    if (!view_.empty()) std::memcpy(larger.get(), view_.data(), view_.size());
    buffer_ = std::move(larger);
    capacity_ = capacity;
  }
  view_ = {buffer_.get(), view_.size()};
}

bool TextWindow::more() {
  if (ended_) return false;
  make_room();
  char* end = buffer_.get() + (view_.data() - buffer_.get()) + view_.size();
  ssize_t count = 0;
  do {
    if (waits_) wait();
    count = ::read(descriptor_, end, kChunk);
  } while (count < 0 && (errno == EINTR || errno == EAGAIN));
  if (count < 0) fail(name_, std::strerror(errno));
  ended_ = count == 0;
  view_ = {view_.data(), view_.size() + static_cast<std::size_t>(count)};
  return !ended_;
}

void TextWindow::need(std::size_t size) {
  while (view_.size() < size && more()) {
  }
}

}  // namespace ds
