// The product of a low-rank update, added to rows of a matrix.
#pragma once

#include <cstdint>

namespace ds::convert {

// out[i][j] = base[i][j] + scaling * (b[i][0] * a[0][j] + ... + b[i][rank - 1] * a[rank - 1][j]),
// every step rounded to f32, summed in this order: the bits depend neither on the machine nor on
// how the rows are dealt to threads. base and out [count, cols], b [count, rank], a [rank, cols],
// all contiguous; `out` may be `base`. A row of b that is zero leaves base's bits.
void add_low_rank(const float* base, std::int64_t count, std::int64_t cols, const float* b,
                  const float* a, std::int64_t rank, float scaling, float* out);

}  // namespace ds::convert
