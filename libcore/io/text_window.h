// A sliding window over text of any size: a file, a pipe, or memory.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace ds {

// The text ahead of a reader. Holds what was read and not yet dropped; movable.
class TextWindow {
 public:
  // A file, or a pipe by its path. Throws Error(kIo) when it cannot be opened or is a folder.
  explicit TextWindow(const std::filesystem::path& path);
  // An open descriptor, which stays the caller's; `name` stands for it in errors.
  TextWindow(int descriptor, std::string name);
  // Text that outlives the window; the view then points into it and more() is always false.
  explicit TextWindow(std::string_view text);
  ~TextWindow();
  TextWindow(TextWindow&& other) noexcept;
  TextWindow& operator=(TextWindow&& other) noexcept;

  std::string_view view() const { return view_; }
  // Offset in the input of the view's first byte.
  std::size_t base() const { return base_; }
  // Reads on: the view grows at its end, and views taken before are invalid. Returns false at the
  // end of the input. Throws Error(kIo), and Error(kInterrupted) after a stop signal while waiting.
  bool more();
  // Reads on until the view has `size` bytes or the input ends.
  void need(std::size_t size);
  // The first `count` bytes of the view are done with. They stay where they are until more().
  void drop(std::size_t count) {
    view_.remove_prefix(count);
    base_ += count;
  }
  // Bytes of the whole input; 0 when that is not known (pipes).
  std::size_t total() const { return total_; }

 private:
  void close() noexcept;
  void wait();
  void make_room();
  std::string name_;
  int descriptor_ = -1;
  bool owned_ = false;
  bool waits_ = false;  // no regular file: reading may block
  bool ended_ = false;
  std::unique_ptr<char[]> buffer_;
  std::size_t capacity_ = 0;
  std::string_view view_;
  std::size_t base_ = 0;
  std::size_t total_ = 0;
};

}  // namespace ds
