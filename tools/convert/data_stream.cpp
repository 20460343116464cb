#include "tools/convert/data_stream.h"

#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/base/stop.h"

namespace ds::convert {

namespace {

// Enough work for a turn of the locks to be nothing beside it.
constexpr std::size_t kBlockBytes = 256u << 10;
constexpr std::size_t kBlockRows = 2048;
// Blocks that are done or under way before the one that is due.
constexpr std::int64_t kMostDone = 32;

// The text of some rows; `first` are rows that were converted while the format was found.
struct RawBlock {
  std::string text;
  std::vector<JsonRow> rows;
  std::vector<std::size_t> begins;
  std::vector<SourceRow> first;
  nlohmann::ordered_json value;  // memory for the row that is converted
  std::size_t position = 0;
};

// A block that was converted, or why it was not.
struct Done {
  ConvertedBlock block;
  std::exception_ptr failure;
};

class Stream {
 public:
  Stream(RowSource& source, const Target& target, const std::function<void(ConvertedBlock&)>& take)
      : source_(source), target_(target), take_(take) {}

  void run(int threads) {
    std::vector<std::thread> team;
    try {
      for (int i = 1; i < threads; ++i) team.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      // Fewer threads do as well.
    }
    work();
    for (std::thread& thread : team) thread.join();
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  // Every thread reads a block, converts it and lays it down as done. Who finds the block that is
  // due hands it on, and those after it as far as they are there; nobody waits for another's block.
  void work() {
    RawBlock raw;
    while (true) {
      std::int64_t turn = 0;
      Done done;
      try {
        if (!read(raw, turn)) return;
        done.block = spare_block();
        convert(raw, done.block);
      } catch (...) {
        done.failure = std::current_exception();
      }
      if (!hand_on(turn, std::move(done))) return;
    }
  }

  // False when the work is over.
  bool hand_on(std::int64_t turn, Done done) {
    std::unique_lock lock(order_);
    room_.wait(lock, [&] { return over_ || turn < next_ + kMostDone; });
    if (over_) return false;
    done_.emplace(turn, std::move(done));
    if (handing_on_) return true;
    handing_on_ = true;
    for (auto due = done_.find(next_); due != done_.end() && !over_; due = done_.find(next_)) {
      Done first = std::move(due->second);
      done_.erase(due);
      lock.unlock();
      try {
        if (first.failure) std::rethrow_exception(first.failure);
        take_(first.block);
      } catch (...) {
        lock.lock();
        over_ = true;
        failure_ = std::current_exception();
        break;
      }
      lock.lock();
      spare_.push_back(std::move(first.block));
      ++next_;
      room_.notify_all();
    }
    handing_on_ = false;
    if (over_) room_.notify_all();
    return !over_;
  }

  ConvertedBlock spare_block() {
    const std::scoped_lock lock(order_);
    if (spare_.empty()) return {};
    ConvertedBlock block = std::move(spare_.back());
    spare_.pop_back();
    return block;
  }

  // A block that cannot be read has its turn too.
  bool read(RawBlock& raw, std::int64_t& turn) {
    const std::scoped_lock lock(reading_);
    if (ended_) return false;
    turn = turns_++;
    try {
      return read_block(raw);
    } catch (...) {
      ended_ = true;
      throw;
    }
  }

  bool read_block(RawBlock& raw) {
    raw.text.clear();
    raw.rows.clear();
    raw.begins.clear();
    raw.first.clear();
    if (stop_requested()) throw Error(ExitCode::kInterrupted, "stopped while converting rows");
    while (raw.text.size() < kBlockBytes && raw.rows.size() < kBlockRows) {
      JsonRow row;
      if (!source_.format()) {
        SourceRow converted;
        if (!source_.next(converted, row)) {
          ended_ = true;
          break;
        }
        raw.first.push_back(std::move(converted));
      } else if (!source_.next_text(row)) {
        ended_ = true;
        break;
      }
      raw.begins.push_back(raw.text.size());
      raw.text += row.text;
      raw.rows.push_back(std::move(row));
    }
    // The window of the source goes on, and so the views must be into the copy.
    for (std::size_t i = 0; i < raw.rows.size(); ++i) {
      const std::size_t size = raw.rows[i].text.size();
      raw.rows[i].text = std::string_view(raw.text).substr(raw.begins[i], size);
    }
    raw.position = source_.position();
    return !raw.rows.empty();
  }

  void convert(RawBlock& raw, ConvertedBlock& block) const {
    block.text.clear();
    block.notes.clear();
    block.rows_read = static_cast<std::int64_t>(raw.rows.size());
    block.rows_kept = 0;
    block.position = raw.position;
    SourceRow row;
    for (std::size_t i = 0; i < raw.rows.size(); ++i) {
      if (i < raw.first.size()) {
        row = std::move(raw.first[i]);
      } else {
        source_.convert(raw.rows[i], row, raw.value);
      }
      const bool usable = row.row.content.has_value();
      const bool kept = usable && target_.write(row.row, block.text);
      block.rows_kept += kept ? 1 : 0;
      if (kept && row.row.repairs.empty()) continue;
      RowNote& note = block.notes.emplace_back();
      note.line = row.line;
      note.column = usable && !raw.rows[i].repaired ? 0 : row.column;
      note.dropped = !kept;
      if (kept) {
        note.remarks = std::move(row.row.repairs);
      } else {
        note.remarks.push_back(std::move(row.row.problem));
        note.text = raw.rows[i].text;
      }
    }
  }

  RowSource& source_;
  const Target& target_;
  const std::function<void(ConvertedBlock&)>& take_;
  std::mutex reading_;
  bool ended_ = false;
  std::int64_t turns_ = 0;
  std::mutex order_;
  std::condition_variable room_;
  std::map<std::int64_t, Done> done_;
  std::vector<ConvertedBlock> spare_;
  std::int64_t next_ = 0;
  bool handing_on_ = false;
  bool over_ = false;
  std::exception_ptr failure_;
};

}  // namespace

void convert_rows(RowSource& source, const Target& target, int threads,
                  const std::function<void(ConvertedBlock&)>& take) {
  Stream(source, target, take).run(threads);
}

}  // namespace ds::convert
