#include "libcore/text/vocabulary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "libcore/text/byte_map.h"

namespace ds {
namespace {

std::uint64_t load64(const char* at) {
  std::uint64_t value = 0;
  std::memcpy(&value, at, 8);
  return value;
}

std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

constexpr std::uint64_t kFirst = 0x9e3779b97f4a7c15;
constexpr std::uint64_t kSecond = 0xd6e8feb86659fd93;

}  // namespace

std::uint64_t hash_bytes(std::string_view bytes) {
  const char* at = bytes.data();
  const std::size_t size = bytes.size();
  std::uint64_t state = kFirst ^ size;
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  if (size >= 8) {
    std::size_t left = size;
    for (; left > 16; left -= 16, at += 16) {
      state = fold(load64(at) ^ kFirst, load64(at + 8) ^ state);
    }
    low = load64(at + (left >= 8 ? 0 : static_cast<std::ptrdiff_t>(left) - 8));
    high = load64(bytes.data() + size - 8);
  } else {
    std::memcpy(&low, at, size);
  }
  return fold(low ^ kSecond, high ^ state);
}

void Vocabulary::reserve(std::size_t tokens, std::size_t bytes) {
  texts_.reserve(bytes);
  bytes_.reserve(bytes);
  by_id_.reserve(tokens);
  if (tokens * 2 > slots_.size()) grow(std::bit_ceil(tokens * 2));
}

std::size_t Vocabulary::place(std::string_view text, std::uint64_t hash) const {
  const std::size_t mask = slots_.size() - 1;
  const auto tag = static_cast<std::uint32_t>(hash >> 32);
  for (std::size_t at = hash & mask;; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.id < 0) return at;
    if (slot.tag == tag && this->text(slot.id) == text) return at;
  }
}

void Vocabulary::grow(std::size_t slots) {
  slots_.assign(std::max<std::size_t>(slots, 16), {});
  for (std::size_t id = 0; id < by_id_.size(); ++id) {
    if (by_id_[id].bytes_size == 0) continue;
    const std::uint64_t hash = hash_bytes(text(static_cast<std::int32_t>(id)));
    slots_[place(text(static_cast<std::int32_t>(id)), hash)] = {
        static_cast<std::uint32_t>(hash >> 32), static_cast<std::int32_t>(id)};
  }
}

Vocabulary::Added Vocabulary::add(std::string_view text, std::int32_t id) {
  if (id < 0 || id > max_id_ || text.empty()) return Added::kBadId;
  if ((count_ + 1) * 2 > slots_.size()) grow(std::max<std::size_t>(slots_.size() * 2, 1024));
  const std::uint64_t hash = hash_bytes(text);
  Slot& slot = slots_[place(text, hash)];
  if (slot.id >= 0) return slot.id == id ? Added::kYes : Added::kTextTaken;
  const auto index = static_cast<std::size_t>(id);
  if (index >= by_id_.size()) by_id_.resize(index + 1);
  Entry& entry = by_id_[index];
  if (entry.bytes_size != 0) return Added::kIdTaken;
  slot = {static_cast<std::uint32_t>(hash >> 32), id};
  entry.text_begin = static_cast<std::uint32_t>(texts_.size());
  entry.text_size = static_cast<std::uint32_t>(text.size());
  texts_ += text;
  entry.bytes_begin = static_cast<std::uint32_t>(bytes_.size());
  append_token_bytes(text, bytes_);
  entry.bytes_size = static_cast<std::uint32_t>(bytes_.size()) - entry.bytes_begin;
  ++count_;
  return Added::kYes;
}

std::int32_t Vocabulary::find(std::string_view text) const {
  if (slots_.empty() || text.empty()) return -1;
  return slots_[place(text, hash_bytes(text))].id;
}

void Vocabulary::prefetch(std::string_view text) const {
  if (!slots_.empty()) __builtin_prefetch(&slots_[hash_bytes(text) & (slots_.size() - 1)], 1);
}

void Vocabulary::find_all(std::span<const std::string_view> texts,
                          std::span<std::int32_t> ids) const {
  constexpr std::size_t kAtOnce = 64;
  std::array<std::uint64_t, kAtOnce> hashes;
  const std::size_t mask = slots_.size() - 1;
  while (!texts.empty() && !slots_.empty()) {
    const std::size_t count = std::min(texts.size(), kAtOnce);
    for (std::size_t i = 0; i < count; ++i) {
      hashes[i] = hash_bytes(texts[i]);
      __builtin_prefetch(&slots_[hashes[i] & mask]);
    }
    const auto entry = [&](std::size_t i) -> const Entry* {
      const std::int32_t id = slots_[hashes[i] & mask].id;
      return id < 0 ? nullptr : &by_id_[static_cast<std::size_t>(id)];
    };
    for (std::size_t i = 0; i < count; ++i) __builtin_prefetch(entry(i));
    for (std::size_t i = 0; i < count; ++i) {
      if (const Entry* at = entry(i)) __builtin_prefetch(texts_.data() + at->text_begin);
    }
    for (std::size_t i = 0; i < count; ++i) ids[i] = slots_[place(texts[i], hashes[i])].id;
    texts = texts.subspan(count);
    ids = ids.subspan(count);
  }
  std::fill(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(texts.size()), -1);
}

std::string_view Vocabulary::bytes(std::int32_t id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= by_id_.size()) return {};
  const Entry& entry = by_id_[static_cast<std::size_t>(id)];
  return std::string_view(bytes_).substr(entry.bytes_begin, entry.bytes_size);
}

std::string_view Vocabulary::text(std::int32_t id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= by_id_.size()) return {};
  const Entry& entry = by_id_[static_cast<std::size_t>(id)];
  return std::string_view(texts_).substr(entry.text_begin, entry.text_size);
}

}  // namespace ds
