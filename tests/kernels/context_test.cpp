#include "kernels/context.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

namespace ds::test {
namespace {

using kernels::CpuContext;
using kernels::Isa;

TEST_CASE("context: threads and instruction set") {
  CHECK_THROWS_AS(CpuContext(0, Isa::kBaseline), std::invalid_argument);
  CHECK_THROWS_AS(CpuContext(-3, Isa::kBaseline), std::invalid_argument);
  CpuContext low(3, Isa::kBaseline);
  CHECK(low.threads() == 3);
  CHECK(low.isa() == Isa::kBaseline);
  const CpuContext high(1, Isa::kAvx512Bf16);
  CHECK(high.isa() == kernels::detect_isa());
  CHECK(kernels::isa_name(Isa::kBaseline) == "baseline");
  CHECK(kernels::isa_name(Isa::kAvx2) == "AVX2");
  CHECK(kernels::isa_name(Isa::kAvx512) == "AVX-512");
  CHECK(kernels::isa_name(Isa::kAvx512Bf16) == "AVX-512 BF16");
}

TEST_CASE("context: scratch is aligned, private, and grows to the largest request") {
  CpuContext context(2, Isa::kBaseline);
  CHECK(context.scratch_bytes() == 0);
  std::byte* first = context.scratch(0, 1000);
  std::byte* second = context.scratch(1, 1000);
  std::byte* shared = context.scratch(2, 1000);
  CHECK(reinterpret_cast<std::uintptr_t>(first) % 64 == 0);
  CHECK(first != second);
  CHECK(second != shared);
  std::memset(first, 1, 1000);
  std::memset(second, 2, 1000);
  std::memset(shared, 3, 1000);
  CHECK(first[999] == std::byte{1});
  CHECK(context.scratch_bytes() == 3000);
  CHECK(context.scratch(0, 10) == first);
  CHECK(context.scratch(0, 1000) == first);
  std::byte* grown = context.scratch(0, 5000);
  std::memset(grown, 4, 5000);
  CHECK(context.scratch_bytes() == 7000);
  CHECK(context.scratch(1, 0) == second);
  CHECK_THROWS_AS(context.scratch(3, 1), std::invalid_argument);
  CHECK_THROWS_AS(context.scratch(-1, 1), std::invalid_argument);
  CHECK_THROWS_AS(context.scratch(0, SIZE_MAX), std::bad_alloc);
  CHECK(context.scratch(0, 16) != nullptr);  // usable after a failure
  CHECK(context.scratch(1, 0) != nullptr);
}

TEST_CASE("context: moving keeps everything") {
  CpuContext context(2, Isa::kBaseline);
  std::byte* memory = context.scratch(1, 100);
  CpuContext moved(std::move(context));
  CHECK(moved.threads() == 2);
  CHECK(moved.scratch(1, 100) == memory);
  CpuContext assigned(1, Isa::kBaseline);
  assigned = std::move(moved);
  CHECK(assigned.threads() == 2);
  CHECK(assigned.scratch(1, 100) == memory);
}

TEST_CASE("context: the matrix library names itself") {
  const std::string text = kernels::matrix_library_description();
  CHECK(text.starts_with("oneDNN "));
  CHECK(text.find(", ") != std::string::npos);
}

}  // namespace
}  // namespace ds::test
