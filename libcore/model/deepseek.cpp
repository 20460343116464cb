#include "libcore/model/deepseek.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "libcore/model/batch_rows.h"
#include "libcore/nn/row_ops.h"

namespace ds {

Sequence::Sequence(const ModelConfig& config, std::int64_t capacity, DType dtype)
    : capacity_(capacity) {
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    layers_.emplace_back(
        dtype, std::vector<std::int64_t>{capacity, config.kv_lora_rank + config.qk_rope_head_dim});
  }
}

Sequence Sequence::branch(std::int64_t more) const {
  Sequence copy;
  copy.length_ = length_;
  copy.capacity_ = length_ + more;
  for (const Tensor& layer : layers_) {
    const std::int64_t width = layer.shape()[1];
    Tensor& rows =
        copy.layers_.emplace_back(layer.dtype(), std::vector<std::int64_t>{copy.capacity_, width});
    std::memcpy(rows.data(), layer.data(),
                static_cast<std::size_t>(length_ * width * kernels::dtype_size(layer.dtype())));
  }
  return copy;
}

std::int64_t DeepSeekModel::lowest_trainable_layer() const {
  if (embedding_.trainable()) return -1;
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    if (blocks_[layer].trainable()) return static_cast<std::int64_t>(layer);
  }
  return static_cast<std::int64_t>(blocks_.size());
}

std::span<const std::size_t> DeepSeekModel::forward_order(Arena& arena) const {
  ArenaList<std::size_t> order(arena, "batch.layers", blocks_.size());
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) order.push_back(layer);
  return order.span();
}

View DeepSeekModel::forward_blocks(Exec& exec, const Rows& inner, const Rows& last,
                                   const ConstView& ids,
                                   const std::function<void(std::size_t, const BlockSaved&)>& see) {
  const std::int64_t tokens = ids.cols();
  // Nothing is kept: two buffers take turns as a block's input and output.
  View h = exec.saved.allocate("block.h", exec.dtype, {tokens, config_.hidden_size});
  View next = exec.saved.allocate("block.h", exec.dtype, {tokens, config_.hidden_size});
  EmbeddingSaved embedding_saved;
  embedding_.forward(exec, ids, h, embedding_saved);
  PageWalk walk(stream_.get(), forward_order(exec.saved));
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Rows& rows = layer + 1 == blocks_.size() ? last : inner;
    next = next.slice_rows(0, rows.outputs());
    ArenaScope scope(exec.saved);
    BlockSaved saved;
    walk.enter();
    blocks_[layer].forward(exec, rows, h, next, saved);
    walk.leave();
    if (see) see(layer, saved);
    std::swap(h, next);
  }
  return h;
}

LossSums DeepSeekModel::loss(Exec& exec, const TokenBatch& batch, std::vector<double>* each) {
  ArenaScope saved_scope(exec.saved);
  ArenaScope scope(exec.scratch);
  const TargetRows targets = find_targets(exec.saved, batch);
  if (targets.count() == 0) return {};
  const BatchRows rows = rows_of(batch, targets);
  const View h = forward_blocks(exec, rows.inner, rows.last, index_view(batch.ids), {});
  return head_.loss(exec, h, targets.targets, 0.0, View(), each);
}

void DeepSeekModel::logits(Exec& exec, const TokenBatch& batch,
                           const std::function<void(std::int64_t, const ConstView&)>& consume) {
  ArenaScope saved_scope(exec.saved);
  ArenaScope scope(exec.scratch);
  const BatchRows rows = rows_of(batch);
  const View h = forward_blocks(exec, rows.inner, rows.last, index_view(batch.ids), {});
  constexpr std::int64_t kChunkElements = std::int64_t{16} << 20;
  const std::int64_t tokens = batch.tokens();
  const std::int64_t chunk =
      std::min(tokens, std::max<std::int64_t>(1, kChunkElements / config_.vocab_size));
  const View logits =
      exec.scratch.allocate("head.logits", exec.statistics(), {chunk, config_.vocab_size});
  for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
    const std::int64_t n = std::min(chunk, tokens - begin);
    head_.logits(exec, h.slice_rows(begin, n), logits.slice_rows(0, n));
    consume(begin, logits.slice_rows(0, n));
  }
}

void DeepSeekModel::prefill(Exec& whole, const TokenBatch& prompts,
                            std::span<Sequence* const> sequences, const View& logits, bool exact) {
  Exec exec = whole;
  exec.caching = true;
  ArenaScope saved_scope(exec.saved);
  ArenaScope scope(exec.scratch);
  const std::int64_t c = config_.kv_lora_rank;
  const std::int64_t r = config_.qk_rope_head_dim;
  TargetRows last{.rows = exec.saved.allocate("batch.target_rows", DType::kI32,
                                              {static_cast<std::int64_t>(sequences.size())}),
                  .targets = {},
                  .index = {}};
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    sequences[i]->length_ = prompts.segments[i + 1] - prompts.segments[i];
    last.rows.as<std::int32_t>()[i] = prompts.segments[i + 1] - 1;
  }
  last.index = index_rows(exec.saved, prompts.tokens(), last.rows);
  const BatchRows rows = rows_of(prompts, last);
  const View h = forward_blocks(
      exec, rows.inner, rows.last, index_view(prompts.ids),
      [&](std::size_t layer, const BlockSaved& saved) {
        for (std::size_t i = 0; i < sequences.size(); ++i) {
          const std::int64_t begin = prompts.segments[i];
          const std::int64_t n = sequences[i]->length_;
          const View cache = sequences[i]->layers_[layer].view().slice_rows(0, n);
          copy_rows(exec, saved.attention.latent.slice_rows(begin, n), cache.slice_cols(0, c));
          copy_rows(exec, saved.attention.kv_a.slice_rows(begin, n).slice_cols(c, r),
                    cache.slice_cols(c, r));
        }
      });
  head_.logits(exec, h, logits, exact);
}

View DeepSeekModel::decode_blocks(Exec& exec, std::span<const std::int32_t> tokens,
                                  std::span<Sequence* const> sequences) {
  const auto rows = static_cast<std::int64_t>(tokens.size());
  const ConstView ids(tokens.data(), DType::kI32, {rows});
  const View positions = exec.scratch.allocate("decode.positions", DType::kI32, {rows});
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    positions.as<std::int32_t>()[i] = static_cast<std::int32_t>(sequences[i]->length_);
  }
  const View h = exec.scratch.allocate("block.h", exec.dtype, {rows, config_.hidden_size});
  EmbeddingSaved embedding_saved;
  embedding_.forward(exec, ids, h, embedding_saved);
  ArenaList<CacheRow> caches(exec.scratch, "decode.caches", sequences.size());
  caches.append(sequences.size());
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      caches[i] = {.cache = sequences[i]->layers_[layer].view(),
                   .length = static_cast<std::int32_t>(sequences[i]->length_)};
    }
    blocks_[layer].decode(exec, positions, h, caches.span());
  }
  for (Sequence* sequence : sequences) ++sequence->length_;
  return h;
}

void DeepSeekModel::decode(Exec& exec, std::span<const std::int32_t> tokens,
                           std::span<Sequence* const> sequences, const View& logits) {
  ArenaScope saved_scope(exec.saved);
  ArenaScope scope(exec.scratch);
  head_.logits(exec, decode_blocks(exec, tokens, sequences), logits);
}

std::vector<double> DeepSeekModel::decode_losses(Exec& exec, std::span<const std::int32_t> tokens,
                                                 std::span<Sequence* const> sequences,
                                                 std::span<const std::int32_t> targets) {
  ArenaScope saved_scope(exec.saved);
  ArenaScope scope(exec.scratch);
  const View h = decode_blocks(exec, tokens, sequences);
  std::vector<double> each;
  head_.loss(exec, h,
             ConstView(targets.data(), DType::kI32, {static_cast<std::int64_t>(targets.size())}),
             0.0, View(), &each);
  return each;
}

}  // namespace ds
