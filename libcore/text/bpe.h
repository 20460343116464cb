// Byte-pair merges by rank, leftmost first (reference/text.md section 1, step 5).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace ds {

// The merges of a vocabulary. Immutable after the last add(); encode() may run in several threads,
// each with its own Scratch.
class Bpe {
 public:
  // Sized for `merges` merges.
  explicit Bpe(std::size_t merges);
  // Ids of the 256 single bytes; needed before encode().
  void set_byte_ids(const std::array<std::int32_t, 256>& ids) { byte_ids_ = ids; }
  // The pair (left, right) becomes `merged`; a pair given twice keeps the last rank.
  void add(std::int32_t left, std::int32_t right, std::int32_t rank, std::int32_t merged);

  // Buffers and a cache of short words; one for each thread at a time.
  class Scratch {
   public:
    Scratch();

   private:
    friend class Bpe;
    struct Symbol {
      std::int32_t id;
      std::int32_t merged;  // what this symbol and its right neighbour become
      std::uint32_t rank;   // of that merge; kNoMerge: none
      std::int32_t previous;
      std::int32_t next;  // -1 at the end; -2: merged away
    };
    static constexpr std::size_t kKeyBytes = 22;
    static constexpr std::size_t kIds = 8;
    struct Word {
      std::uint64_t hash = 0;
      std::uint8_t size = 0;  // 0: empty
      std::uint8_t ids = 0;
      std::array<char, kKeyBytes> key{};
      std::array<std::int32_t, kIds> id{};
    };
    std::vector<Word> words_;
    std::vector<std::int32_t> ids_;
    std::vector<std::uint32_t> ranks_;
    std::vector<std::int32_t> merged_;
    std::vector<Symbol> symbols_;
    std::vector<std::uint64_t> queue_;
  };

  // Appends the ids of one pre-token.
  void encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const;

 private:
  static constexpr std::uint32_t kNoMerge = UINT32_MAX;
  struct Merge {
    std::uint64_t pair = UINT64_MAX;
    std::uint32_t rank = kNoMerge;
    std::int32_t merged = -1;
  };
  std::size_t home(std::uint64_t pair) const;
  const Merge& find(std::int32_t left, std::int32_t right) const;
  void encode_short(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const;
  void encode_long(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const;

  std::array<std::int32_t, 256> byte_ids_{};
  std::vector<Merge> merges_;  // open addressing, at most half full
  int shift_ = 0;
};

}  // namespace ds
