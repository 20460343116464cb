#include "libcore/text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

#include "libcore/text/vocabulary.h"

namespace ds {
namespace {

constexpr std::size_t kCachedWords = 16384;  // a power of two; 1 MiB
constexpr std::size_t kShortWord = 48;       // bytes up to which scanning beats a queue

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

}  // namespace

Bpe::Scratch::Scratch() : words_(kCachedWords) {}

Bpe::Bpe(std::size_t merges) {
  const std::size_t slots = std::bit_ceil(std::max<std::size_t>(merges * 2, 16));
  merges_.resize(slots);
  shift_ = 64 - std::countr_zero(slots);
}

std::size_t Bpe::home(std::uint64_t pair) const {
  pair ^= pair >> 29;
  return static_cast<std::size_t>((pair * 0x9e3779b97f4a7c15u) >> shift_);
}

void Bpe::add(std::int32_t left, std::int32_t right, std::int32_t rank, std::int32_t merged) {
  const std::uint64_t pair = pair_of(left, right);
  const std::size_t mask = merges_.size() - 1;
  std::size_t at = home(pair);
  while (merges_[at].rank != kNoMerge && merges_[at].pair != pair) at = (at + 1) & mask;
  merges_[at] = {pair, static_cast<std::uint32_t>(rank), merged};
}

const Bpe::Merge& Bpe::find(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_of(left, right);
  const std::size_t mask = merges_.size() - 1;
  std::size_t at = home(pair);
  while (merges_[at].pair != pair && merges_[at].rank != kNoMerge) at = (at + 1) & mask;
  return merges_[at];
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (word.empty()) return;
  if (word.size() == 1) {
    ids.push_back(byte_ids_[static_cast<unsigned char>(word[0])]);
    return;
  }
  if (word.size() > Scratch::kKeyBytes) {
    if (word.size() <= kShortWord) {
      encode_short(word, scratch, ids);
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
  encode_short(word, scratch, ids);
  const std::size_t count = ids.size() - first;
  if (count > Scratch::kIds) return;
  cached.hash = hash;
  cached.size = static_cast<std::uint8_t>(word.size());
  cached.ids = static_cast<std::uint8_t>(count);
  std::memcpy(cached.key.data(), word.data(), word.size());
  std::copy_n(ids.begin() + static_cast<std::ptrdiff_t>(first), count, cached.id.begin());
}

void Bpe::encode_short(std::string_view word, Scratch& scratch,
                       std::vector<std::int32_t>& ids) const {
  std::size_t count = word.size();
  scratch.ids_.resize(count);
  scratch.ranks_.resize(count);
  scratch.merged_.resize(count);
  std::int32_t* id = scratch.ids_.data();
  std::uint32_t* rank = scratch.ranks_.data();
  std::int32_t* merged = scratch.merged_.data();
  const auto look_up = [&](std::size_t i) {
    const Merge& merge = find(id[i], id[i + 1]);
    rank[i] = merge.rank;
    merged[i] = merge.merged;
  };
  for (std::size_t i = 0; i < count; ++i) id[i] = byte_ids_[static_cast<unsigned char>(word[i])];
  for (std::size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    std::uint32_t best = kNoMerge;
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < count; ++i) {
      if (rank[i] < best) {
        best = rank[i];
        at = i;
      }
    }
    if (best == kNoMerge) break;
    id[at] = merged[at];
    --count;
    for (std::size_t i = at + 1; i < count; ++i) {
      id[i] = id[i + 1];
      rank[i] = rank[i + 1];
      merged[i] = merged[i + 1];
    }
    if (at + 1 < count) look_up(at);
    if (at > 0) look_up(at - 1);
  }
  ids.insert(ids.end(), id, id + count);
}

// A queue of (rank, position) that may hold entries out of date: an entry counts when its position
// is still alive and its merge there still has that rank (a rank belongs to one pair).
void Bpe::encode_long(std::string_view word, Scratch& scratch,
                      std::vector<std::int32_t>& ids) const {
  const auto count = static_cast<std::int32_t>(word.size());
  auto& symbols = scratch.symbols_;
  auto& queue = scratch.queue_;
  symbols.resize(word.size());
  queue.clear();
  const auto look_up = [&](std::int32_t at) {
    Scratch::Symbol& symbol = symbols[static_cast<std::size_t>(at)];
    symbol.rank = kNoMerge;
    if (symbol.next < 0) return false;
    const Merge& merge = find(symbol.id, symbols[static_cast<std::size_t>(symbol.next)].id);
    symbol.rank = merge.rank;
    symbol.merged = merge.merged;
    if (merge.rank == kNoMerge) return false;
    queue.push_back(static_cast<std::uint64_t>(merge.rank) << 32 | static_cast<std::uint32_t>(at));
    return true;
  };
  for (std::int32_t i = 0; i < count; ++i) {
    symbols[static_cast<std::size_t>(i)] = {
        byte_ids_[static_cast<unsigned char>(word[static_cast<std::size_t>(i)])], -1, kNoMerge,
        i - 1, i + 1 < count ? i + 1 : -1};
  }
  for (std::int32_t i = 0; i < count; ++i) look_up(i);
  const std::greater<> later;
  std::make_heap(queue.begin(), queue.end(), later);
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const std::uint64_t top = queue.back();
    queue.pop_back();
    const auto at = static_cast<std::int32_t>(top & UINT32_MAX);
    Scratch::Symbol& symbol = symbols[static_cast<std::size_t>(at)];
    if (symbol.next < 0 || symbol.rank != top >> 32) continue;
    Scratch::Symbol& gone = symbols[static_cast<std::size_t>(symbol.next)];
    symbol.id = symbol.merged;
    symbol.next = gone.next;
    gone.next = -2;
    if (symbol.next >= 0) symbols[static_cast<std::size_t>(symbol.next)].previous = at;
    if (look_up(at)) std::push_heap(queue.begin(), queue.end(), later);
    if (symbol.previous >= 0 && look_up(symbol.previous)) {
      std::push_heap(queue.begin(), queue.end(), later);
    }
  }
  for (std::int32_t i = 0; i >= 0; i = symbols[static_cast<std::size_t>(i)].next) {
    ids.push_back(symbols[static_cast<std::size_t>(i)].id);
  }
}

}  // namespace ds
