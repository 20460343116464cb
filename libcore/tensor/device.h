// Where a model runs, and who watches.
#pragma once

#include <string_view>
#include <variant>

#include "kernels/context.h"
#include "kernels/view.h"
#include "libcore/base/error.h"

namespace ds {

// What one op costs. Weight gradients are the products that contract over the rows of a batch (a
// transposed left operand); their share of cost.flops is told apart because one call may hold them
// beside input gradients.
struct OpWork {
  kernels::Cost cost;
  double weight_gradient_flops = 0.0;
};

// Sees every op that a device runs; used by the profiler. before() and after() bracket the work.
class OpObserver {
 public:
  virtual ~OpObserver() = default;
  virtual void before(std::string_view op, const OpWork& work) = 0;
  virtual void after(std::string_view op) = 0;
  // The part of the model that the following ops belong to; scopes nest. `index` is the number of a
  // layer, else -1.
  virtual void enter(std::string_view /*scope*/, std::int64_t /*index*/) {}
  virtual void leave() {}
};

namespace detail {
// Outside Device, so that argument-dependent lookup finds the op's run() wherever its header was
// included; inside, Device::run would hide it.
template <class Context, class Op>
auto run_op(Context& context, const Op& op) -> decltype(run(context, op)) {
  return run(context, op);
}

// A function of this name, so that a namespace ds::check is not what the name means.
void check() = delete;
template <class Op>
void check_op(const Op& op) {
  check(op);
}

template <class Op>
OpWork work_of(const Op& op) {
  OpWork work{cost(op), 0.0};
  if constexpr (requires { op.problems; }) {
    for (const auto& p : op.problems) {
      if (!p.trans_a) continue;
      work.weight_gradient_flops +=
          2.0 * static_cast<double>(p.c.size()) * static_cast<double>(p.a.rows());
    }
  }
  return work;
}
}  // namespace detail

// One CPU or CUDA context. Not shared between threads.
class Device {
 public:
  static Device cpu(int threads) {
    return Device(kernels::CpuContext(threads, kernels::detect_isa()));
  }
  static Device cpu(int threads, kernels::Isa isa) {
    return Device(kernels::CpuContext(threads, isa));
  }

  // The observer must outlive its use here; null: none.
  void set_observer(OpObserver* observer) { observer_ = observer; }
  OpObserver* observer() const { return observer_; }

  // Checks and runs one op. On the CPU it is finished on return.
  // Throws std::invalid_argument for an op that breaks its contract and Error(kResources) for an op
  // this backend does not have.
  template <class Op>
  void run(const Op& op) {
    detail::check_op(op);
    if (observer_ != nullptr) observer_->before(Op::kName, detail::work_of(op));
    std::visit(
        [&op](auto& context) {
          if constexpr (requires { detail::run_op(context, op); }) {
            detail::run_op(context, op);
          } else {
            throw Error(ExitCode::kResources,
                        std::string(Op::kName) + " has no CUDA kernel in this version",
                        "use --device cpu");
          }
        },
        context_);
    if (observer_ != nullptr) observer_->after(Op::kName);
  }

  bool is_cpu() const { return std::holds_alternative<kernels::CpuContext>(context_); }
  // Threads of the CPU context; 1 for CUDA.
  int threads() const {
    const auto* cpu = std::get_if<kernels::CpuContext>(&context_);
    return cpu != nullptr ? cpu->threads() : 1;
  }
  // Instruction set of the CPU context; kBaseline for CUDA.
  kernels::Isa isa() const {
    const auto* cpu = std::get_if<kernels::CpuContext>(&context_);
    return cpu != nullptr ? cpu->isa() : kernels::Isa::kBaseline;
  }
  // Bytes the kernels hold as scratch memory; 0 for CUDA.
  std::size_t scratch_bytes() const {
    const auto* cpu = std::get_if<kernels::CpuContext>(&context_);
    return cpu != nullptr ? cpu->scratch_bytes() : 0;
  }

 private:
  explicit Device(kernels::CpuContext context) : context_(std::move(context)) {}
  std::variant<kernels::CpuContext, kernels::CudaContext> context_;
  OpObserver* observer_ = nullptr;
};

// Tells the observer, if there is one, that the ops of this C++ scope belong to `name`.
class OpScope {
 public:
  explicit OpScope(const Device& device, std::string_view name, std::int64_t index = -1)
      : observer_(device.observer()) {
    if (observer_ != nullptr) observer_->enter(name, index);
  }
  ~OpScope() {
    if (observer_ != nullptr) observer_->leave();
  }
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

 private:
  OpObserver* observer_;
};

}  // namespace ds
