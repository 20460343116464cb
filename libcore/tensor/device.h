// Where a model runs, and who watches.
#pragma once

#include <string_view>
#include <variant>

#include "kernels/context.h"
#include "kernels/view.h"
#include "libcore/base/error.h"

namespace ds {

// Sees every op that a device runs; used by the profiler. before() and after() bracket the work.
class OpObserver {
 public:
  virtual ~OpObserver() = default;
  virtual void before(std::string_view op, const kernels::Cost& cost) = 0;
  virtual void after(std::string_view op) = 0;
};

namespace detail {
// Outside Device, so that argument-dependent lookup finds the op's run() wherever its header was
// included; inside, Device::run would hide it.
template <class Context, class Op>
auto run_op(Context& context, const Op& op) -> decltype(run(context, op)) {
  return run(context, op);
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

  void set_observer(OpObserver* observer) { observer_ = observer; }

  // Checks and runs one op. On the CPU it is finished on return.
  // Throws std::invalid_argument for an op that breaks its contract and Error(kResources) for an op
  // this backend does not have.
  template <class Op>
  void run(const Op& op) {
    check(op);
    if (observer_ != nullptr) observer_->before(Op::kName, cost(op));
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

 private:
  explicit Device(kernels::CpuContext context) : context_(std::move(context)) {}
  std::variant<kernels::CpuContext, kernels::CudaContext> context_;
  OpObserver* observer_ = nullptr;
};

}  // namespace ds
