// What a layer runs with.
#pragma once

#include "libcore/tensor/arena.h"
#include "libcore/tensor/device.h"

namespace ds {

// References only. `saved` holds what backward needs and outlives a layer's forward; `scratch`
// holds temporaries and is given back by the ArenaScope of whoever allocated.
struct Exec {
  Device& device;
  Arena& saved;
  Arena& scratch;
  DType dtype = DType::kF32;  // compute dtype: F32, BF16 or F64
  bool training = false;      // dropout is active
  // Activations that are cheap to make again are not kept for backward (ActivationGroup in
  // libcore/train/memory_plan.h names them); backward makes them with the same bits.
  bool selective = false;
  // The same for the outputs of attention, which are cheap for short rows only.
  bool drop_attention = false;
  // Nothing of the present block is trained: what only adapters read is not kept at all.
  bool frozen = false;
  // The latents of attention are read after a block's forward, by whoever fills a cache.
  bool caching = false;
  std::uint64_t seed = 0;         // of dropout
  std::uint64_t step_stream = 0;  // unique per optimizer step and micro-batch
  // Where activations go that selective recomputation drops: in scratch they live as long as
  // forward of their half of the block.
  Arena& droppable() const { return selective ? scratch : saved; }
  // The same for what only the gradients of adapters and weights read: inputs of linear layers.
  Arena& inputs() const { return frozen ? scratch : droppable(); }
  DType statistics() const { return kernels::statistics_dtype(dtype); }
};

}  // namespace ds
