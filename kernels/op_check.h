// What the check() functions of the ops share: every failure is a std::invalid_argument whose text
// begins with the op's name and gives the numbers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/view.h"

namespace ds::kernels::op_check {

[[noreturn]] void fail(std::string_view op, const std::string& text);
// Throws std::bad_alloc: for code that is compiled several times and so avoids std.
[[noreturn]] void out_of_memory();
// "[3, 4]"
std::string dims(std::int64_t rows, std::int64_t cols);

// `view` is present (an operand without elements may have no memory).
void given(std::string_view op, const char* name, const ConstView& view);
// Present, of this dtype.
void dtype(std::string_view op, const char* name, const ConstView& view, DType wanted);
// Present, F32, BF16 or F64.
void compute(std::string_view op, const char* name, const ConstView& view);
// Present, [rows, cols] after flattening the leading dimensions; rows may be strided.
void matrix(std::string_view op, const char* name, const ConstView& view, std::int64_t rows,
            std::int64_t cols);
void matrix(std::string_view op, const char* name, const ConstView& view, std::int64_t rows,
            std::int64_t cols, DType wanted);
// Present, `count` contiguous elements.
void vector(std::string_view op, const char* name, const ConstView& view, std::int64_t count);
void vector(std::string_view op, const char* name, const ConstView& view, std::int64_t count,
            DType wanted);
// value >= least.
void at_least(std::string_view op, const char* name, std::int64_t value, std::int64_t least);

// Bytes of the view's elements, 0 when it is absent.
double bytes(const ConstView& view);

// Contents, called by run(): every element of the I32 matrix lies in [0, limit).
void indices_below(std::string_view op, const char* name, const ConstView& indices,
                   std::int64_t limit);
// Contents: I32 row offsets, >= 0, not falling, the last <= rows.
void row_offsets(std::string_view op, const char* name, const ConstView& offsets,
                 std::int64_t rows);

}  // namespace ds::kernels::op_check
