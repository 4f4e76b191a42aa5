// Which of the loops, compiled once for each instruction set, this machine may run.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdlib>
#include <cstring>

#include "softmax_rows.h"

namespace triarch {

#ifdef TRIARCH_X86_LEVELS
// The last of the three that the processor has all instructions for; TRIARCH_CPU_LEVEL=baseline or avx2 asks for less.
template <class Loops>
const Loops& best_of(const Loops& baseline, const Loops& avx2, const Loops& avx512) {
  static const char* const asked = std::getenv("TRIARCH_CPU_LEVEL");
  static const bool is_limited =
      asked != nullptr && (std::strcmp(asked, "baseline") == 0 || std::strcmp(asked, "avx2") == 0);
  __builtin_cpu_init();
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  static const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && !is_limited) return avx512;
  return has_avx2 && !(is_limited && asked[0] == 'b') ? avx2 : baseline;
}
#define TRIARCH_BEST_LOOPS(Kind) ::triarch::best_of(kBaseline##Kind, kAvx2##Kind, kAvx512##Kind)
#else
#define TRIARCH_BEST_LOOPS(Kind) kBaseline##Kind
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
