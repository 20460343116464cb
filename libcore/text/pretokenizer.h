// The pre_tokenizer of tokenizer.json: cuts a text into the pieces that BPE works on.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace ds {

// Immutable; split() may run in several threads, each with its own Scratch.
class Pretokenizer {
 public:
  struct Piece {
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
  };
  // Buffers and match data.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(Scratch&&) noexcept;
    Scratch& operator=(Scratch&&) noexcept;

   private:
    friend class Pretokenizer;
    struct State;
    std::unique_ptr<State> state_;
  };

  // `settings` is the value of "pre_tokenizer" in file `name`: a Sequence of Split (Regex or
  // String, every behaviour), Digits and a final ByteLevel, or one of them. Throws Error(kBadInput)
  // naming the step and what is not supported.
  Pretokenizer(const nlohmann::ordered_json& settings, const std::string& name);
  ~Pretokenizer();
  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;

  // Replaces `pieces` by those of `text` (valid UTF-8, less than 4 GiB), in order. Pieces are never
  // empty; text that a Removed step took is in none. Throws Error(kBadInput) when a pattern needs
  // too many steps.
  void split(std::string_view text, Scratch& scratch, std::vector<Piece>& pieces) const;

  // ByteLevel add_prefix_space: BPE sees a space before every piece that does not begin with one.
  bool adds_prefix_space() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ds
