#include "libcore/model/deepseek.h"

#include <fmt/format.h>

#include <algorithm>

#include "libcore/nn/row_ops.h"

namespace ds {

namespace {

// Rows of a batch that predict something, and their place in the compacted order.
struct TargetRows {
  std::vector<std::int32_t> rows;     // token index of each target
  std::vector<std::int32_t> targets;  // the id to predict
  std::vector<std::int32_t> index;    // [tokens] position in rows, or rows.size() for none
};

void index_rows(std::size_t tokens, TargetRows& found) {
  found.index.assign(tokens, static_cast<std::int32_t>(found.rows.size()));
  for (std::size_t i = 0; i < found.rows.size(); ++i) {
    found.index[static_cast<std::size_t>(found.rows[i])] = static_cast<std::int32_t>(i);
  }
}

TargetRows find_targets(const TokenBatch& batch) {
  TargetRows found;
  for (std::size_t i = 0; i < batch.ids.size(); ++i) {
    if (batch.targets[i] == kNoTarget) continue;
    found.rows.push_back(static_cast<std::int32_t>(i));
    found.targets.push_back(batch.targets[i]);
  }
  index_rows(batch.ids.size(), found);
  return found;
}

// The rows of a batch; in the last block only those in `wanted` give an output, because nothing
// later looks at the others.
struct BatchRows {
  Rows inner;
  Rows last;
};

BatchRows rows_of(const TokenBatch& batch) {
  const Rows all{.positions = index_view(batch.positions), .segments = index_view(batch.segments)};
  return {all, all};
}

// `targets` must outlive the result.
BatchRows rows_of(const TokenBatch& batch, const TargetRows& targets) {
  BatchRows rows = rows_of(batch);
  if (targets.rows.size() < batch.ids.size()) {
    rows.last.wanted = index_view(targets.rows);
    rows.last.wanted_index = index_view(targets.index);
  }
  return rows;
}

}  // namespace

Sequence::Sequence(const ModelConfig& config, std::int64_t capacity, DType dtype)
    : capacity_(capacity) {
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    layers_.emplace_back(
        dtype, std::vector<std::int64_t>{capacity, config.kv_lora_rank + config.qk_rope_head_dim});
  }
}

std::int64_t DeepSeekModel::lowest_trainable_layer() const {
  const auto trains = [](const Parameter* p) { return p != nullptr && p->trainable && p->grad; };
  const auto mlp_trains = [](const Mlp& mlp) {
    return mlp.gate_proj.trainable() || mlp.up_proj.trainable() || mlp.down_proj.trainable();
  };
  if (embedding_.trainable()) return -1;
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Block& block = blocks_[layer];
    const Mla& mla = block.attention;
    bool found = trains(block.attention_norm.parameter) || trains(block.mlp_norm.parameter) ||
                 mla.q_proj.trainable() || mla.q_a_proj.trainable() || mla.q_b_proj.trainable() ||
                 mla.kv_a_proj.trainable() || mla.kv_b_proj.trainable() || mla.o_proj.trainable();
    if (block.mlp) found = found || mlp_trains(*block.mlp);
    if (block.moe) {
      found = found || trains(block.moe->gate_parameter);
      for (const Expert& expert : block.moe->experts) {
        found = found || expert.gate_proj.trainable() || expert.up_proj.trainable() ||
                expert.down_proj.trainable();
      }
      if (block.moe->shared) found = found || mlp_trains(*block.moe->shared);
    }
    if (found) return static_cast<std::int64_t>(layer);
  }
  return static_cast<std::int64_t>(blocks_.size());
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
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Rows& rows = layer + 1 == blocks_.size() ? last : inner;
    next = next.slice_rows(0, rows.outputs());
    ArenaScope scope(exec.saved);
    BlockSaved saved;
    blocks_[layer].forward(exec, rows, h, next, saved);
    if (see) see(layer, saved);
    std::swap(h, next);
  }
  return h;
}

LossSums DeepSeekModel::forward_backward(Exec& whole, const TokenBatch& batch, double grad_scale,
                                         Recompute recompute) {
  Exec exec = whole;
  exec.selective = recompute == Recompute::kSelective;
  ArenaScope saved_scope(exec.saved);
  ArenaScope scope(exec.scratch);
  const TargetRows targets = find_targets(batch);
  const auto count = static_cast<std::int64_t>(targets.rows.size());
  if (count == 0) return {};
  const BatchRows batch_rows = rows_of(batch, targets);
  const ConstView ids = index_view(batch.ids);
  const std::int64_t tokens = batch.tokens();
  const std::int64_t hidden = config_.hidden_size;
  const std::int64_t lowest = lowest_trainable_layer();
  const auto layers = static_cast<std::int64_t>(blocks_.size());
  const auto rows_at = [&](std::int64_t layer) -> const Rows& {
    return layer + 1 == layers ? batch_rows.last : batch_rows.inner;
  };

  std::vector<View> h;
  std::vector<BlockSaved> saved(blocks_.size());
  EmbeddingSaved embedding_saved;
  h.push_back(exec.saved.allocate("block.h", exec.dtype, {tokens, hidden}));
  embedding_.forward(exec, ids, h[0], embedding_saved);
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const Rows& rows = rows_at(layer);
    h.push_back(exec.saved.allocate("block.h", exec.dtype, {rows.outputs(), hidden}));
    const auto l = static_cast<std::size_t>(layer);
    if (recompute == Recompute::kFull || layer < lowest) {
      ArenaScope dropped(exec.saved);
      BlockSaved unused;
      blocks_[l].forward(exec, rows, h[l], h[l + 1], unused);
    } else {
      blocks_[l].forward(exec, rows, h[l], h[l + 1], saved[l]);
    }
  }

  const bool need_dh = lowest < layers;
  const bool need_head = need_dh || head_.trainable();
  // Gradients of the last block's output, which has a row a target, and of every block's input.
  const View d_last =
      need_head ? exec.scratch.allocate("head.dh", exec.dtype, {count, hidden}) : View();
  const LossSums sums =
      head_.loss(exec, h.back(), index_view(targets.targets), grad_scale, d_last, nullptr);
  if (!need_dh || sums.non_finite >= 0) return sums;
  const View dh = batch_rows.last.wanted
                      ? exec.scratch.allocate("block.dh", exec.dtype, {tokens, hidden})
                      : d_last;

  for (std::int64_t layer = layers - 1; layer >= std::max<std::int64_t>(lowest, 0); --layer) {
    const auto l = static_cast<std::size_t>(layer);
    const bool need_dx = layer > lowest;
    const Rows& rows = rows_at(layer);
    const View& d_out = layer + 1 == layers ? d_last : dh;
    if (recompute == Recompute::kFull) {
      const OpScope again_scope(exec.device, "recompute");
      ArenaScope again(exec.saved);
      BlockSaved block_saved;
      // h[l + 1] is written again with the same bits.
      blocks_[l].forward(exec, rows, h[l], h[l + 1], block_saved);
      blocks_[l].backward(exec, rows, h[l], block_saved, d_out, dh, need_dx);
    } else {
      blocks_[l].backward(exec, rows, h[l], saved[l], d_out, dh, need_dx);
    }
  }
  if (lowest < 0) embedding_.backward(exec, ids, dh, embedding_saved);
  return sums;
}

LossSums DeepSeekModel::loss(Exec& exec, const TokenBatch& batch, std::vector<double>* each) {
  ArenaScope saved_scope(exec.saved);
  ArenaScope scope(exec.scratch);
  const TargetRows targets = find_targets(batch);
  if (targets.rows.empty()) return {};
  const BatchRows rows = rows_of(batch, targets);
  const View h = forward_blocks(exec, rows.inner, rows.last, index_view(batch.ids), {});
  return head_.loss(exec, h, index_view(targets.targets), 0.0, View(), each);
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

void DeepSeekModel::prefill(Exec& exec, const TokenBatch& prompts,
                            std::span<Sequence* const> sequences, const View& logits) {
  ArenaScope saved_scope(exec.saved);
  ArenaScope scope(exec.scratch);
  const std::int64_t c = config_.kv_lora_rank;
  const std::int64_t r = config_.qk_rope_head_dim;
  TargetRows last;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    sequences[i]->length_ = prompts.segments[i + 1] - prompts.segments[i];
    last.rows.push_back(prompts.segments[i + 1] - 1);
  }
  index_rows(prompts.ids.size(), last);
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
  head_.logits(exec, h, logits);
}

void DeepSeekModel::decode(Exec& exec, std::span<const std::int32_t> tokens,
                           std::span<Sequence* const> sequences, const View& logits) {
  ArenaScope saved_scope(exec.saved);
  ArenaScope scope(exec.scratch);
  const auto rows = static_cast<std::int64_t>(tokens.size());
  const ConstView ids(tokens.data(), DType::kI32, {rows});
  std::vector<std::int32_t> positions;
  for (const Sequence* sequence : sequences) {
    positions.push_back(static_cast<std::int32_t>(sequence->length_));
  }
  const View h = exec.scratch.allocate("block.h", exec.dtype, {rows, config_.hidden_size});
  EmbeddingSaved embedding_saved;
  embedding_.forward(exec, ids, h, embedding_saved);
  std::vector<CacheRow> caches(sequences.size());
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      caches[i] = {.cache = sequences[i]->layers_[layer].view(),
                   .length = static_cast<std::int32_t>(sequences[i]->length_)};
    }
    blocks_[layer].decode(exec, index_view(positions), h, caches);
  }
  for (Sequence* sequence : sequences) ++sequence->length_;
  head_.logits(exec, h, logits);
}

}  // namespace ds
