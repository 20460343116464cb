// Forward and backward of an update's micro-batches.
#include <algorithm>

#include "libcore/base/error.h"
#include "libcore/model/batch_rows.h"
#include "libcore/model/deepseek.h"
#include "libcore/nn/row_ops.h"

namespace ds {

const char* recompute_name(Recompute recompute) {
  if (recompute == Recompute::kNone) return "none";
  return recompute == Recompute::kSelective ? "selective" : "full";
}

Recompute parse_recompute(const std::string& name) {
  for (const Recompute each : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
    if (name == recompute_name(each)) return each;
  }
  throw Error(ExitCode::kUsage, "activation checkpointing '" + name + "' is unknown",
              "use none, selective or full");
}

bool drops_attention(const ModelConfig& config, std::int64_t length) {
  const std::int64_t value = config.v_head_dim;
  return length * (config.q_head_dim() + value) <= 2 * config.hidden_size * value;
}

namespace {

std::int64_t longest_segment(const TokenBatch& batch) {
  std::int64_t longest = 0;
  for (std::size_t i = 1; i < batch.segments.size(); ++i) {
    longest = std::max<std::int64_t>(longest, batch.segments[i] - batch.segments[i - 1]);
  }
  return longest;
}

}  // namespace

// Layers outside, micro-batches inside. With one micro-batch this is the usual order.
class TrainPass {
 public:
  TrainPass(DeepSeekModel& model, Exec& whole, std::span<const MicroBatch> batches,
            double grad_scale, Recompute recompute);
  // One entry a micro-batch.
  void run(std::span<LossSums> sums);

 private:
  // What one micro-batch carries from layer to layer.
  struct State {
    Exec exec;
    const TokenBatch& batch;
    std::size_t place;  // of the micro-batch among all
    TargetRows targets;
    BatchRows rows;
    ArenaList<View> h;            // input of every layer and output of the last
    ArenaList<BlockSaved> saved;  // of every layer; none where all is made again
    EmbeddingSaved embedding_saved;
    View d_last;  // gradient of the last block's output, which has a row a target
    View dh;      // gradient of the present block's input
  };
  const Rows& rows_at(const State& state, std::int64_t layer) const {
    return layer + 1 == layers_ ? state.rows.last : state.rows.inner;
  }
  std::int64_t lowest_block() const { return std::max<std::int64_t>(lowest_, 0); }
  std::span<const std::size_t> walk_order(Arena& arena) const;
  void embed(State& state);
  void forward(State& state, std::int64_t layer);
  LossSums head(State& state);
  void backward(State& state, std::int64_t layer);

  DeepSeekModel& model_;
  double grad_scale_;
  Recompute recompute_;
  std::int64_t layers_;
  std::int64_t lowest_;  // trainable layer; -1: the embedding
  ArenaScope saved_scope_;
  ArenaScope scratch_scope_;
  Arena& saved_;
  ArenaList<State> states_;         // of the batches that predict something
  ArenaList<Arena::Mark> borders_;  // before what a layer keeps
  std::span<const std::size_t> order_;
};

TrainPass::TrainPass(DeepSeekModel& model, Exec& whole, std::span<const MicroBatch> batches,
                     double grad_scale, Recompute recompute)
    : model_(model),
      grad_scale_(grad_scale),
      recompute_(recompute),
      layers_(static_cast<std::int64_t>(model.blocks_.size())),
      lowest_(model.lowest_trainable_layer()),
      saved_scope_(whole.saved),
      scratch_scope_(whole.scratch),
      saved_(whole.saved),
      states_(whole.saved, "batch.states", batches.size()),
      borders_(whole.saved, "batch.layers", model.blocks_.size()),
      order_(walk_order(whole.saved)) {
  for (std::size_t i = 0; i < batches.size(); ++i) {
    Exec exec = whole;
    exec.selective = recompute == Recompute::kSelective;
    exec.drop_attention =
        exec.selective && drops_attention(model.config_, longest_segment(*batches[i].tokens));
    exec.step_stream = batches[i].step_stream;
    const TokenBatch& tokens = *batches[i].tokens;
    if (tokens.target_count() == 0) continue;
    const TargetRows targets = find_targets(whole.saved, tokens);
    const auto layers = static_cast<std::size_t>(layers_);
    State state{.exec = exec,
                .batch = tokens,
                .place = i,
                .targets = targets,
                .rows = rows_of(tokens, targets),
                .h = ArenaList<View>(whole.saved, "batch.layers", layers + 1),
                .saved = {},
                .embedding_saved = {},
                .d_last = {},
                .dh = {}};
    if (recompute != Recompute::kFull) {
      state.saved = ArenaList<BlockSaved>(whole.saved, "batch.layers", layers);
      state.saved.append(layers);
    }
    states_.push_back(state);
  }
}

// Up through the layers, the head, down to the lowest layer that is trained.
std::span<const std::size_t> TrainPass::walk_order(Arena& arena) const {
  ArenaList<std::size_t> order(arena, "batch.layers", static_cast<std::size_t>(2 * layers_ + 1));
  for (std::int64_t layer = 0; layer <= layers_; ++layer) {
    order.push_back(static_cast<std::size_t>(layer));
  }
  for (std::int64_t layer = layers_ - 1; layer >= lowest_block(); --layer) {
    order.push_back(static_cast<std::size_t>(layer));
  }
  return order.span();
}

void TrainPass::run(std::span<LossSums> sums) {
  std::fill(sums.begin(), sums.end(), LossSums{});
  if (states_.empty()) return;
  PageWalk walk(model_.stream_.get(), order_);
  for (State& state : states_) embed(state);
  for (std::int64_t layer = 0; layer < layers_; ++layer) {
    walk.enter();
    borders_.push_back(saved_.mark());
    for (State& state : states_) forward(state, layer);
    walk.leave();
  }
  bool finite = true;
  walk.enter();
  for (State& state : states_) {
    sums[state.place] = head(state);
    finite = finite && sums[state.place].non_finite < 0;
  }
  walk.leave();
  if (lowest_ >= layers_ || !finite) return;

  for (std::int64_t layer = layers_ - 1; layer >= lowest_block(); --layer) {
    walk.enter();
    for (State& state : states_) backward(state, layer);
    walk.leave();
    // What it kept is of no more use, so that what lower layers make again takes its place.
    saved_.release(borders_[static_cast<std::size_t>(layer)]);
  }
  if (lowest_ < 0) {
    for (State& state : states_) {
      model_.embedding_.backward(state.exec, index_view(state.batch.ids), state.dh,
                                 state.embedding_saved);
    }
  }
}

void TrainPass::embed(State& state) {
  Exec& exec = state.exec;
  state.h.push_back(exec.saved.allocate("block.h", exec.dtype,
                                        {state.batch.tokens(), model_.config_.hidden_size}));
  model_.embedding_.forward(exec, index_view(state.batch.ids), state.h[0], state.embedding_saved);
}

void TrainPass::forward(State& state, std::int64_t layer) {
  Exec& exec = state.exec;
  const auto l = static_cast<std::size_t>(layer);
  const Rows& rows = rows_at(state, layer);
  state.h.push_back(
      exec.saved.allocate("block.h", exec.dtype, {rows.outputs(), model_.config_.hidden_size}));
  if (recompute_ == Recompute::kFull || layer < lowest_) {
    ArenaScope dropped(exec.saved);
    BlockSaved unused;
    model_.blocks_[l].forward(exec, rows, state.h[l], state.h[l + 1], unused);
  } else {
    model_.blocks_[l].forward(exec, rows, state.h[l], state.h[l + 1], state.saved[l]);
  }
}

LossSums TrainPass::head(State& state) {
  Exec& exec = state.exec;
  const std::int64_t hidden = model_.config_.hidden_size;
  const bool need_dh = lowest_ < layers_;
  const std::int64_t count = state.targets.count();
  if (need_dh || model_.head_.trainable()) {
    state.d_last = exec.scratch.allocate("head.dh", exec.dtype, {count, hidden});
  }
  if (need_dh) {
    state.dh = state.rows.last.wanted
                   ? exec.scratch.allocate("block.dh", exec.dtype, {state.batch.tokens(), hidden})
                   : state.d_last;
  }
  return model_.head_.loss(exec, state.h.back(), state.targets.targets, grad_scale_, state.d_last,
                           nullptr);
}

void TrainPass::backward(State& state, std::int64_t layer) {
  Exec& exec = state.exec;
  const auto l = static_cast<std::size_t>(layer);
  const Block& block = model_.blocks_[l];
  const bool need_dx = layer > lowest_;
  const Rows& rows = rows_at(state, layer);
  const View& d_out = layer + 1 == layers_ ? state.d_last : state.dh;
  if (recompute_ != Recompute::kFull) {
    block.backward(exec, rows, state.h[l], state.saved[l], d_out, state.dh, need_dx);
    return;
  }
  const OpScope again_scope(exec.device, "recompute");
  ArenaScope again(exec.saved);
  BlockSaved block_saved;
  // h[l + 1] is written again with the same bits.
  block.forward(exec, rows, state.h[l], state.h[l + 1], block_saved);
  block.backward(exec, rows, state.h[l], block_saved, d_out, state.dh, need_dx);
}

void DeepSeekModel::forward_backward(Exec& exec, std::span<const MicroBatch> batches,
                                     double grad_scale, Recompute recompute,
                                     std::span<LossSums> sums) {
  TrainPass(*this, exec, batches, grad_scale, recompute).run(sums);
}

LossSums DeepSeekModel::forward_backward(Exec& exec, const TokenBatch& batch, double grad_scale,
                                         Recompute recompute) {
  const MicroBatch one{.tokens = &batch, .step_stream = exec.step_stream};
  LossSums sums;
  forward_backward(exec, {&one, 1}, grad_scale, recompute, {&sums, 1});
  return sums;
}

}  // namespace ds
