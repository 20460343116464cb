#include "libcore/text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

#include "libcore/text/vocabulary.h"

namespace ds {
namespace {

constexpr std::size_t kCachedWords = 16384;  // a power of two; 1 MiB
constexpr std::size_t kShortWord = 192;      // bytes up to which scanning beats a queue; < 256
constexpr std::uint64_t kEmpty = UINT64_MAX;
constexpr int kRankBits = 24;

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 20 |
         static_cast<std::uint32_t>(right);
}

std::uint64_t scatter(std::uint64_t pair) { return (pair ^ pair >> 17) * 0x9e3779b97f4a7c15u; }

}  // namespace

Bpe::Scratch::Scratch() : words_(kCachedWords) {}

Bpe::Bpe(std::size_t merges) {
  const std::size_t slots = std::bit_ceil(std::max<std::size_t>(merges * 2, 16));
  slots_.assign(slots, kEmpty);
  shift_ = 64 - std::countr_zero(slots);
  merged_.reserve(merges);
}

std::size_t Bpe::home(std::uint64_t pair) const {
  return static_cast<std::size_t>(scatter(pair) >> shift_);
}

void Bpe::prefetch(std::int32_t left, std::int32_t right) const {
  __builtin_prefetch(&slots_[home(pair_of(left, right))], 1);
}

void Bpe::grow() {
  std::vector<std::uint64_t> old(slots_.size() * 2, kEmpty);
  old.swap(slots_);
  --shift_;
  const std::size_t mask = slots_.size() - 1;
  for (const std::uint64_t slot : old) {
    if (slot == kEmpty) continue;
    std::size_t at = home(slot >> kRankBits);
    while (slots_[at] != kEmpty) at = (at + 1) & mask;
    slots_[at] = slot;
  }
}

void Bpe::add(std::int32_t left, std::int32_t right, std::int32_t merged) {
  const std::uint64_t pair = pair_of(left, right);
  if ((used_ + 1) * 2 > slots_.size()) grow();
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = home(pair);
  while (slots_[at] != kEmpty && slots_[at] >> kRankBits != pair) at = (at + 1) & mask;
  if (slots_[at] == kEmpty) ++used_;
  slots_[at] = pair << kRankBits | merged_.size();
  merged_.push_back(merged);
}

void Bpe::set_byte_ids(const std::array<std::int32_t, 256>& ids) {
  byte_ids_ = ids;
  const std::size_t bits = std::bit_ceil(std::max<std::size_t>(used_ * 8, 64));
  filter_.assign(bits / 64, 0);
  filter_shift_ = 64 - std::countr_zero(bits);
  for (const std::uint64_t slot : slots_) {
    if (slot == kEmpty) continue;
    const std::uint64_t bit = scatter(slot >> kRankBits) >> filter_shift_;
    filter_[bit / 64] |= std::uint64_t{1} << (bit % 64);
  }
  byte_ranks_.resize(65536);
  for (std::size_t pair = 0; pair < byte_ranks_.size(); ++pair) {
    byte_ranks_[pair] = rank_of(ids[pair >> 8], ids[pair & 0xff]);
  }
}

std::uint32_t Bpe::rank_of(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_of(left, right);
  const std::uint64_t scattered = scatter(pair);
  const std::uint64_t bit = scattered >> filter_shift_;
  if ((filter_[bit / 64] >> (bit % 64) & 1) == 0) return kNoMerge;
  const std::size_t mask = slots_.size() - 1;
  for (auto at = static_cast<std::size_t>(scattered >> shift_);; at = (at + 1) & mask) {
    const std::uint64_t slot = slots_[at];
    if (slot == kEmpty) return kNoMerge;
    if (slot >> kRankBits == pair) return slot & kRankLimit;
  }
}

std::uint32_t Bpe::byte_rank(char left, char right) const {
  return byte_ranks_[static_cast<std::size_t>(static_cast<unsigned char>(left)) << 8 |
                     static_cast<unsigned char>(right)];
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (word.empty()) return;
  if (word.size() == 1) {
    ids.push_back(byte_ids_[static_cast<unsigned char>(word[0])]);
    return;
  }
  if (word.size() > Scratch::kKeyBytes) {
    if (word.size() <= kShortWord) {
      encode_short(word, ids);
    } else {
      encode_long(word, scratch, ids);
    }
    return;
  }
  const std::uint64_t hash = hash_bytes(word);
  Scratch::Word& cached = scratch.words_[hash & (kCachedWords - 1)];
  if (cached.hash == hash && cached.size == word.size() &&
      std::memcmp(cached.key.data(), word.data(), word.size()) == 0) {
    ids.insert(ids.end(), cached.id.begin(), cached.id.begin() + cached.ids);
    return;
  }
  const std::size_t first = ids.size();
  encode_short(word, ids);
  const std::size_t count = ids.size() - first;
  if (count > Scratch::kIds) return;
  cached.hash = hash;
  cached.size = static_cast<std::uint8_t>(word.size());
  cached.ids = static_cast<std::uint8_t>(count);
  std::memcpy(cached.key.data(), word.data(), word.size());
  std::copy_n(ids.begin() + static_cast<std::ptrdiff_t>(first), count, cached.id.begin());
}

// Every byte has a key, rank above position, so that the smallest key is the next merge: the lowest
// rank and of its pairs the leftmost. Keys are signed because the baseline instruction set compares
// only those four at a time.
void Bpe::encode_short(std::string_view word, std::vector<std::int32_t>& ids) const {
  constexpr std::int32_t kNone = INT32_MAX;
  constexpr std::uint32_t kSign = 0x80000000u;
  const std::size_t count = word.size();
  const std::size_t padded = (count + 15) / 16 * 16;
  std::array<std::int32_t, kShortWord> keys;
  std::array<std::int32_t, kShortWord> id;
  std::array<std::uint8_t, kShortWord + 1> next;
  std::array<std::uint8_t, kShortWord + 1> previous;
  const auto set_key = [&](std::size_t at, std::uint32_t rank) {
    const auto key = (rank << 8 | static_cast<std::uint32_t>(at)) ^ kSign;
    keys[at] = rank == kNoMerge ? kNone : static_cast<std::int32_t>(key);
  };
  for (std::size_t i = 0; i < count; ++i) {
    id[i] = byte_ids_[static_cast<unsigned char>(word[i])];
    next[i] = static_cast<std::uint8_t>(i + 1);
    previous[i + 1] = static_cast<std::uint8_t>(i);
  }
  for (std::size_t i = 0; i + 1 < count; ++i) set_key(i, byte_rank(word[i], word[i + 1]));
  std::fill(keys.begin() + static_cast<std::ptrdiff_t>(count) - 1,
            keys.begin() + static_cast<std::ptrdiff_t>(padded), kNone);
  while (true) {
    std::int32_t best = kNone;
    for (std::size_t i = 0; i < padded; ++i) best = std::min(best, keys[i]);
    if (best == kNone) break;
    const std::uint32_t key = static_cast<std::uint32_t>(best) ^ kSign;
    const std::size_t at = key & 0xff;
    const std::size_t gone = next[at];
    const std::size_t after = next[gone];
    id[at] = merged_[key >> 8];
    next[at] = static_cast<std::uint8_t>(after);
    previous[after] = static_cast<std::uint8_t>(at);
    keys[gone] = kNone;
    set_key(at, after < count ? rank_of(id[at], id[after]) : kNoMerge);
    if (at > 0) set_key(previous[at], rank_of(id[previous[at]], id[at]));
  }
  for (std::size_t i = 0; i < count; i = next[i]) ids.push_back(id[i]);
}

// A queue of (rank, position) that may hold entries out of date: an entry counts when its position
// is still alive and its merge there still has that rank (a rank belongs to one pair).
void Bpe::encode_long(std::string_view word, Scratch& scratch,
                      std::vector<std::int32_t>& ids) const {
  const std::size_t count = word.size();
  std::vector<Scratch::Symbol>& symbols = scratch.symbols_;
  std::vector<std::uint64_t>& queue = scratch.queue_;
  symbols.resize(count);
  queue.clear();
  const auto symbol_at = [&](std::int32_t at) -> Scratch::Symbol& {
    return symbols[static_cast<std::size_t>(at)];
  };
  const auto put = [&](std::int32_t at, std::uint32_t rank) {
    symbol_at(at).rank = rank;
    if (rank == kNoMerge) return false;
    queue.push_back(static_cast<std::uint64_t>(rank) << 32 | static_cast<std::uint32_t>(at));
    return true;
  };
  for (std::size_t i = 0; i < count; ++i) {
    const auto at = static_cast<std::int32_t>(i);
    const bool last = i + 1 == count;
    symbols[i] = {byte_ids_[static_cast<unsigned char>(word[i])], kNoMerge, at - 1,
                  last ? -1 : at + 1};
    if (!last) put(at, byte_rank(word[i], word[i + 1]));
  }
  const std::greater<> later;
  std::make_heap(queue.begin(), queue.end(), later);
  const auto look_up = [&](std::int32_t at) {
    const Scratch::Symbol& symbol = symbol_at(at);
    const bool alone = symbol.next < 0;
    if (put(at, alone ? kNoMerge : rank_of(symbol.id, symbol_at(symbol.next).id))) {
      std::push_heap(queue.begin(), queue.end(), later);
    }
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const std::uint64_t top = queue.back();
    queue.pop_back();
    const auto at = static_cast<std::int32_t>(top & UINT32_MAX);
    Scratch::Symbol& symbol = symbol_at(at);
    if (symbol.next < 0 || symbol.rank != top >> 32) continue;
    Scratch::Symbol& gone = symbol_at(symbol.next);
    symbol.id = merged_[symbol.rank];
    symbol.next = gone.next;
    gone.next = -2;
    if (symbol.next >= 0) symbol_at(symbol.next).previous = at;
    look_up(at);
    if (symbol.previous >= 0) look_up(symbol.previous);
  }
  for (std::int32_t i = 0; i >= 0; i = symbol_at(i).next) ids.push_back(symbol_at(i).id);
}

}  // namespace ds
