// Which rows make up each update.
#pragma once

#include <cstdint>
#include <vector>

#include "libcore/data/example.h"

namespace ds {

struct BatchPlan {
  std::int64_t batch_size = 1;    // rows (or packs) of a micro-batch
  std::int64_t accumulation = 1;  // micro-batches of an update
  bool shuffle = true;            // a new order every epoch, from (seed, epoch)
  bool packing = false;           // rows are packed to at most cutoff_len tokens first
  std::int64_t cutoff_len = 2048;
  std::uint64_t seed = 42;
};

// The micro-batches of one update, each with at least one target.
struct Window {
  std::vector<TokenBatch> batches;
  std::int64_t targets = 0;
  std::int64_t tokens = 0;
};

// Walks the examples epoch after epoch. The last window of an epoch may be partial and is an update
// too. Its position (epoch, row) is all that a resume needs.
class DataOrder {
 public:
  // `examples` must outlive this object and hold at least one row with a target.
  DataOrder(const std::vector<Example>& examples, BatchPlan plan);
  Window next();
  std::int64_t windows_per_epoch() const;
  std::int64_t epoch() const { return epoch_; }
  std::int64_t row() const { return row_; }
  void seek(std::int64_t epoch, std::int64_t row);

 private:
  void start_epoch();
  const std::vector<Example>& examples_;
  BatchPlan plan_;
  std::vector<std::vector<std::int64_t>> units_;  // rows (or packs) in this epoch's order
  std::int64_t epoch_ = 0;
  std::int64_t row_ = 0;
};

}  // namespace ds
