// Rows of a feed-forward layer between its two products, on CPU: the seam between the vector loops and torch.
#pragma once

#include <cstdint>

#include "../attention/softmax_rows.h"

namespace triarch {

enum class Activation { kRelu, kGelu, kGeluTanh, kSilu };

// Gated rows are [gates (width), values (width)] and give activation(gate) * value; others are [width].
struct ActivationKind {
  RowType type;
  Activation activation;
  bool is_gated;
  int64_t width;
};

// Row r begins at row r of a contiguous tensor. bias: null, or one row that is added to each row of the input.
struct ActivationForward {
  const void* input;
  const void* bias;
  void* output;
};

// grad_bias: null exactly without a bias, else the float (double for kDouble) accumulators of its gradient, one row.
struct ActivationBackward {
  const void* grad_output;
  const void* input;
  const void* bias;
  void* grad_input;
  void* grad_bias;
};

// The loops for one instruction set. `begin` and `end` are rows.
struct ActivationLoops {
  void (*forward)(const ActivationKind& kind, const ActivationForward& rows, int64_t begin, int64_t end);
  void (*backward)(const ActivationKind& kind, const ActivationBackward& rows, int64_t begin, int64_t end);
};

extern const ActivationLoops kBaselineActivations;
#ifdef TRIARCH_X86_LEVELS
extern const ActivationLoops kAvx2Activations;
extern const ActivationLoops kAvx512Activations;
#endif

}  // namespace triarch
