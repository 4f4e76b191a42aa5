// Rows divided by their root mean square, on CPU: the seam between the vector loops and torch.
#pragma once

#include <cstdint>

#include "../attention/softmax_rows.h"

namespace triarch {

// Rows [n, width], contiguous, and a weight [width] of the same type. "Compute" below is float, or double for kDouble.
struct RmsNormKind {
  RowType type;
  int64_t width;
  double eps;
};

struct RmsNormForward {
  const void* input;
  const void* weight;
  void* output;
  void* inverses;  // Compute [n]: 1 / sqrt(mean square of the row + eps)
};

struct RmsNormBackward {
  const void* grad_output;
  const void* input;
  const void* weight;
  const void* inverses;
  void* grad_input;
  void* grad_weight;  // accumulators, Compute [width]
};

// The loops for one instruction set. `begin` and `end` are rows.
struct RmsNormLoops {
  void (*forward)(const RmsNormKind& kind, const RmsNormForward& rows, int64_t begin, int64_t end);
  void (*backward)(const RmsNormKind& kind, const RmsNormBackward& rows, int64_t begin, int64_t end);
};

extern const RmsNormLoops kBaselineRmsNorms;
#ifdef TRIARCH_X86_LEVELS
extern const RmsNormLoops kAvx2RmsNorms;
extern const RmsNormLoops kAvx512RmsNorms;
#endif

}  // namespace triarch
