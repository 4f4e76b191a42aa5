// Which of the loops, compiled once for each instruction set, this machine may run.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "softmax_rows.h"

namespace triarch {

#ifdef TRIARCH_X86_LEVELS
// The last of the three that the processor has all instructions for.
template <class Loops>
const Loops& best_of(const Loops& baseline, const Loops& avx2, const Loops& avx512) {
  __builtin_cpu_init();
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  static const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return has_avx512 ? avx512 : has_avx2 ? avx2 : baseline;
}
#endif

// How the loops name a tensor's dtype; `what` goes into the message for one that they do not know.
inline RowType row_type(const at::Tensor& tensor, const char* what) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return RowType::kFloat;
    case at::kDouble: return RowType::kDouble;
    case at::kBFloat16: return RowType::kBFloat16;
    case at::kHalf: return RowType::kHalf;
    default: TORCH_CHECK_TYPE(false, what, ": ", tensor.scalar_type(), " is not supported");
  }
}

}  // namespace triarch
