#include "kernels/view.h"

#include <doctest/doctest.h>

#include <array>
#include <vector>

namespace ds::test {
namespace {

using kernels::ConstView;
using kernels::DType;
using kernels::View;

TEST_CASE("view: shapes of every rank") {
  std::vector<float> data(120);
  const View scalar(data.data(), DType::kF32, {});
  CHECK(scalar.rank() == 0);
  CHECK(scalar.rows() == 1);
  CHECK(scalar.cols() == 1);
  CHECK(scalar.size() == 1);
  const View vector(data.data(), DType::kF32, {7});
  CHECK(vector.rows() == 1);
  CHECK(vector.cols() == 7);
  const View cube(data.data(), DType::kF32, {2, 3, 4, 5});
  CHECK(cube.rows() == 24);
  CHECK(cube.cols() == 5);
  CHECK(cube.extent(2) == 4);
  CHECK(cube.row_stride() == 5);
  CHECK(cube.contiguous());
  const std::array<std::int64_t, 2> extents = {0, 3};
  const View empty(data.data(), DType::kF32, extents.data(), 2);
  CHECK(empty.size() == 0);
  CHECK(empty.contiguous());
  CHECK_FALSE(static_cast<bool>(ConstView()));
  CHECK(static_cast<bool>(empty));
}

TEST_CASE("view: slices share memory and keep the row stride") {
  std::vector<float> data(60);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const View whole(data.data(), DType::kF32, {2, 3, 10});
  const View rows = whole.slice_rows(2, 3);
  CHECK(rows.rank() == 2);
  CHECK(rows.rows() == 3);
  CHECK(rows.as<float>()[0] == 20.0f);
  const View block = rows.slice_cols(4, 5);
  CHECK(block.rows() == 3);
  CHECK(block.cols() == 5);
  CHECK(block.row_stride() == 10);
  CHECK_FALSE(block.contiguous());
  CHECK(block.as<float>()[block.row_stride() + 1] == 35.0f);
  CHECK(block.slice_rows(1, 1).slice_cols(1, 2).as<float>()[0] == 35.0f);
  CHECK(block.slice_rows(0, 1).contiguous());
  block.as<float>()[0] = -1.0f;
  CHECK(data[24] == -1.0f);
  CHECK(whole.slice_rows(6, 0).size() == 0);
  CHECK_THROWS_AS(whole.slice_rows(5, 2), std::invalid_argument);
  CHECK_THROWS_AS(whole.slice_rows(-1, 2), std::invalid_argument);
  CHECK_THROWS_AS(whole.slice_cols(0, 11), std::invalid_argument);
  CHECK_THROWS_AS(whole.slice_cols(INT64_MAX, 2), std::invalid_argument);
}

TEST_CASE("view: reshape keeps the memory and refuses gaps") {
  std::vector<double> data(24);
  const View whole(data.data(), DType::kF64, {4, 6});
  const View shaped = whole.reshape({2, 3, 4});
  CHECK(shaped.data() == whole.data());
  CHECK(shaped.rows() == 6);
  CHECK_THROWS_AS(whole.reshape({5, 5}), std::invalid_argument);
  CHECK_THROWS_AS(whole.slice_cols(0, 3).reshape({12}), std::invalid_argument);
}

TEST_CASE("view: typed access and bad shapes") {
  std::vector<float> data(8);
  const View view(data.data(), DType::kF32, {8});
  CHECK_THROWS_WITH_AS(view.as<double>(), "view: dtype is F32, read as F64", std::invalid_argument);
  CHECK_THROWS_AS(view.extent(1), std::invalid_argument);
  CHECK_THROWS_AS(view.extent(-1), std::invalid_argument);
  CHECK_THROWS_AS(View(data.data(), DType::kF32, {-1}), std::invalid_argument);
  CHECK_THROWS_AS(View(data.data(), DType::kF32, {1, 1, 1, 1, 1}), std::invalid_argument);
  CHECK_THROWS_AS(View(data.data(), DType::kF32, {INT64_MAX, 2}), std::invalid_argument);
  CHECK_THROWS_AS(View(data.data(), DType::kF4, {8}).slice_cols(1, 1), std::invalid_argument);
}

}  // namespace
}  // namespace ds::test
