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
  // Ids and ranks must be below these.
  static constexpr std::int32_t kIdLimit = 1 << 20;
  static constexpr std::int32_t kRankLimit = (1 << 24) - 1;

  // Sized for `merges` merges; it may be given more.
  explicit Bpe(std::size_t merges);
  // The pair (left, right) becomes `merged`. Ranks count up from 0; a pair given twice keeps the
  // last one.
  void add(std::int32_t left, std::int32_t right, std::int32_t merged);
  // Brings the place of a pair into the processor's cache, for an add() soon after.
  void prefetch(std::int32_t left, std::int32_t right) const;
  // Ids of the 256 single bytes; call it after the last add() and before encode().
  void set_byte_ids(const std::array<std::int32_t, 256>& ids);

  // Buffers and a cache of short words; one for each thread at a time.
  class Scratch {
   public:
    Scratch();

   private:
    friend class Bpe;
    static constexpr std::size_t kKeyBytes = 22;
    static constexpr std::size_t kIds = 8;
    struct Word {
      std::uint64_t hash = 0;
      std::uint8_t size = 0;  // 0: empty
      std::uint8_t ids = 0;
      std::array<char, kKeyBytes> key{};
      std::array<std::int32_t, kIds> id{};
    };
    struct Symbol {
      std::int32_t id = 0;
      std::uint32_t rank = 0;  // of the merge with the right neighbour; kNoMerge: none
      std::int32_t previous = -1;
      std::int32_t next = -1;  // -1 at the end; -2: merged away
    };
    std::vector<Word> words_;
    std::vector<Symbol> symbols_;
    std::vector<std::uint64_t> queue_;
  };

  // Appends the ids of one pre-token of less than 2 GiB.
  void encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const;

 private:
  static constexpr std::uint32_t kNoMerge = UINT32_MAX;
  std::size_t home(std::uint64_t pair) const;
  void grow();
  // Rank of the merge of two symbols, kNoMerge: there is none.
  std::uint32_t rank_of(std::int32_t left, std::int32_t right) const;
  std::uint32_t byte_rank(char left, char right) const;
  void encode_short(std::string_view word, std::vector<std::int32_t>& ids) const;
  void encode_long(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const;

  std::array<std::int32_t, 256> byte_ids_{};
  // Left id, right id and rank in 20, 20 and 24 bits; open addressing, at most half full.
  std::vector<std::uint64_t> slots_;
  int shift_ = 0;
  std::size_t used_ = 0;
  std::vector<std::int32_t> merged_;   // by rank
  std::vector<std::uint64_t> filter_;  // bits: pairs that may have a merge
  int filter_shift_ = 0;
  std::vector<std::uint32_t> byte_ranks_;  // of every pair of single bytes
};

}  // namespace ds
