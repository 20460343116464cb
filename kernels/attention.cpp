#include "kernels/attention.h"

#include "kernels/op_check.h"

namespace ds::kernels {
namespace {

void check_shape(std::string_view name, const MlaShape& s) {
  op_check::at_least(name, "heads", s.heads, 1);
  op_check::at_least(name, "nope", s.nope, 0);
  op_check::at_least(name, "rope", s.rope, 0);
  op_check::at_least(name, "nope + rope", static_cast<std::int64_t>(s.nope) + s.rope, 1);
  op_check::at_least(name, "value", s.value, 1);
}

// The operands both directions read.
template <class Op>
void check_inputs(const Op& op) {
  const std::string_view name = Op::kName;
  check_shape(name, op.shape);
  op_check::compute(name, "q", op.q);
  const DType dtype = op.q.dtype();
  const std::int64_t tokens = op.q.rows();
  const std::int64_t heads = op.shape.heads;
  op_check::matrix(name, "q", op.q, tokens, heads * (op.shape.nope + op.shape.rope));
  op_check::matrix(name, "kv", op.kv, tokens, heads * (op.shape.nope + op.shape.value), dtype);
  op_check::matrix(name, "k_rope", op.k_rope, tokens, op.shape.rope, dtype);
  op_check::dtype(name, "segments", op.segments, DType::kI32);
  op_check::at_least(name, "number of segment offsets", op.segments.size(), 1);
  op_check::vector(name, "segments", op.segments, op.segments.size());
  op_check::matrix(name, "o", op.o, tokens, heads * op.shape.value, dtype);
  op_check::matrix(name, "lse", op.lse, heads, tokens, statistics_dtype(dtype));
}

// Visible (query, key) pairs of one head. Segments are host memory, as all of a CPU op.
double visible_pairs(const ConstView& segments) {
  const auto* offsets = segments.as<std::int32_t>();
  double pairs = 0.0;
  for (std::int64_t i = 0; i + 1 < segments.size(); ++i) {
    const double length = static_cast<double>(offsets[i + 1]) - offsets[i];
    pairs += length * (length + 1.0) / 2.0;
  }
  return pairs;
}

}  // namespace

void check(const AttentionForward& op) { check_inputs(op); }

Cost cost(const AttentionForward& op) {
  const double pairs = visible_pairs(op.segments) * op.shape.heads;
  return {2.0 * pairs * (op.shape.nope + op.shape.rope + op.shape.value) + 4.0 * pairs,
          op_check::bytes(op.q) + op_check::bytes(op.kv) + op_check::bytes(op.k_rope) +
              op_check::bytes(op.o) + op_check::bytes(op.lse)};
}

void check(const AttentionBackward& op) {
  check_inputs(op);
  const DType dtype = op.q.dtype();
  const auto name = op.kName;
  op_check::matrix(name, "d_o", op.d_o, op.o.rows(), op.o.cols(), dtype);
  op_check::matrix(name, "dq", op.dq, op.q.rows(), op.q.cols(), dtype);
  op_check::matrix(name, "dkv", op.dkv, op.kv.rows(), op.kv.cols(), dtype);
  op_check::matrix(name, "dk_rope", op.dk_rope, op.k_rope.rows(), op.k_rope.cols(), dtype);
}

Cost cost(const AttentionBackward& op) {
  const double pairs = visible_pairs(op.segments) * op.shape.heads;
  const double key = op.shape.nope + op.shape.rope;
  return {2.0 * pairs * (3.0 * key + 2.0 * op.shape.value) + 8.0 * pairs,
          op_check::bytes(op.q) + op_check::bytes(op.kv) + op_check::bytes(op.k_rope) +
              op_check::bytes(op.o) + op_check::bytes(op.lse) + op_check::bytes(op.d_o) +
              op_check::bytes(op.dq) + op_check::bytes(op.dkv) + op_check::bytes(op.dk_rope)};
}

void check(const AttentionDecode& op) {
  const auto name = op.kName;
  op_check::at_least(name, "heads", op.heads, 1);
  op_check::at_least(name, "latent", op.latent, 1);
  op_check::at_least(name, "rope", op.rope, 0);
  op_check::compute(name, "q_latent", op.q_latent);
  const DType dtype = op.q_latent.dtype();
  const std::int64_t rows = op.q_latent.rows();
  const std::int64_t heads = op.heads;
  op_check::matrix(name, "q_latent", op.q_latent, rows, heads * op.latent);
  op_check::matrix(name, "o_latent", op.o_latent, rows, heads * op.latent, dtype);
  op_check::dtype(name, "q_rope", op.q_rope, dtype);
  op_check::at_least(name, "q_rope_offset", op.q_rope_offset, 0);
  if (heads > 1) op_check::at_least(name, "q_rope_stride", op.q_rope_stride, op.rope);
  const std::int64_t needed = (heads - 1) * op.q_rope_stride + op.q_rope_offset + op.rope;
  if (op.q_rope.rows() != rows || op.q_rope.cols() < needed) {
    op_check::fail(name, "q_rope is " + op_check::dims(op.q_rope.rows(), op.q_rope.cols()) +
                             ", need " + op_check::dims(rows, needed) + " or wider");
  }
  if (static_cast<std::int64_t>(op.caches.size()) != rows ||
      static_cast<std::int64_t>(op.visible.size()) != rows) {
    op_check::fail(name, std::to_string(rows) + " rows but " + std::to_string(op.caches.size()) +
                             " caches and " + std::to_string(op.visible.size()) +
                             " visible lengths");
  }
  for (std::size_t i = 0; i < op.caches.size(); ++i) {
    const std::string cache = "cache " + std::to_string(i);
    op_check::dtype(name, cache.c_str(), op.caches[i], dtype);
    op_check::matrix(name, cache.c_str(), op.caches[i], op.caches[i].rows(),
                     static_cast<std::int64_t>(op.latent) + op.rope);
    if (op.visible[i] < 1 || op.visible[i] > op.caches[i].rows()) {
      op_check::fail(name, "visible[" + std::to_string(i) + "] is " +
                               std::to_string(op.visible[i]) +
                               ", need 1 <= visible <= " + std::to_string(op.caches[i].rows()));
    }
  }
}

Cost cost(const AttentionDecode& op) {
  double entries = 0.0;
  for (const std::int32_t visible : op.visible) entries += visible;
  const double width = static_cast<double>(op.latent) + op.rope;
  return {2.0 * entries * op.heads * (width + op.latent),
          entries * width * dtype_bits(op.q_latent.dtype()) / 8.0 + op_check::bytes(op.q_latent) +
              op_check::bytes(op.o_latent)};
}

}  // namespace ds::kernels
