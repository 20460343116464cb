// Rows through a target, block by block, in the order of the input.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/data/row_source.h"
#include "tools/convert/data_target.h"

namespace ds::convert {

// One dropped or repaired row.
struct RowNote {
  std::int64_t line = 0;
  std::int64_t column = 0;  // 0: does not apply
  bool dropped = false;
  std::vector<RowRemark> remarks;  // at least one; a dropped row has one
  std::string text;                // of a dropped row, as it is in the file
};

// Some rows of the input, converted.
struct ConvertedBlock {
  std::string text;  // lines of the kept rows
  std::vector<RowNote> notes;
  std::int64_t rows_read = 0;
  std::int64_t rows_kept = 0;
  std::size_t position = 0;  // bytes of the input behind it
};

// Converts every row of `source` with `threads` threads and hands the blocks to `take`, one at a
// time and in order. Holds a few blocks in memory, whatever the size of the input. Throws what the
// source, the target and `take` throw, the first of it by order of rows; Error(kInterrupted) after
// a stop signal.
void convert_rows(RowSource& source, const Target& target, int threads,
                  const std::function<void(ConvertedBlock&)>& take);

}  // namespace ds::convert
