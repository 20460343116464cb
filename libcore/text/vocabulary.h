// Texts, bytes and ids of a byte-level vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ds {

// Hash of a short byte string; the same in one build, not for files.
std::uint64_t hash_bytes(std::string_view bytes);

// Text -> id and id -> bytes. All strings lie in two arenas.
class Vocabulary {
 public:
  // `max_id`: the largest id that may be added; memory grows with it, so it must be justified by
  // the size of the file.
  explicit Vocabulary(std::int32_t max_id = 0) : max_id_(max_id) {}
  // Prepares for about `tokens` tokens of together `bytes` bytes.
  void reserve(std::size_t tokens, std::size_t bytes);
  enum class Added { kYes, kTextTaken, kIdTaken, kBadId };
  // Adds one token (valid UTF-8 text in the byte map's code points, or any other text).
  // kBadId: an empty text, or an id outside 0..max_id. kTextTaken: the text is there under another
  // id; the same text with the same id counts as kYes.
  Added add(std::string_view text, std::int32_t id);

  // Brings the place of a text into the processor's cache, for an add() soon after.
  void prefetch(std::string_view text) const;

  // -1 when unknown.
  std::int32_t find(std::string_view text) const;
  // Looks up several texts at once, which hides the waits for memory.
  void find_all(std::span<const std::string_view> texts, std::span<std::int32_t> ids) const;
  // The bytes of a token; empty for an unknown id.
  std::string_view bytes(std::int32_t id) const;
  // The text of a token; empty for an unknown id.
  std::string_view text(std::int32_t id) const;
  std::int64_t size() const { return static_cast<std::int64_t>(by_id_.size()); }  // largest id + 1
  std::size_t tokens() const { return count_; }

 private:
  struct Entry {
    std::uint32_t text_begin = 0;
    std::uint32_t text_size = 0;
    std::uint32_t bytes_begin = 0;
    std::uint32_t bytes_size = 0;  // 0: no token (tokens are never empty)
  };
  struct Slot {
    std::uint32_t tag = 0;
    std::int32_t id = -1;
  };
  std::size_t place(std::string_view text, std::uint64_t hash) const;
  void grow(std::size_t slots);

  std::string texts_;
  std::string bytes_;
  std::vector<Entry> by_id_;
  std::vector<Slot> slots_;
  std::size_t count_ = 0;
  std::int32_t max_id_ = 0;
};

}  // namespace ds
