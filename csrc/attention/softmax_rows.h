// Rows of the interval softmax on CPU: the seam between the vector loops and torch.
//
// The loops know nothing of torch, so that one source is compiled once for each instruction set in seconds; the caller
// asks the machine which of them it may run.
#pragma once

#include <cstdint>

namespace triarch {

enum class RowType { kFloat, kDouble, kBFloat16, kHalf };

// Scores [b, h, s_q, s_k], contiguous. Row r holds the scores of query r % num_queries of head (r / num_queries) %
// heads.
struct RowShape {
  int64_t heads;
  int64_t num_queries;
  int64_t num_keys;
  const int32_t* intervals;  // [b, s_q, 2], half-open
  double scale;
};

// probs may be scores. bias: null, or [h, s_q + s_k - 1] with `bias_stride` entries from head to head.
struct ForwardRows {
  RowShape shape;
  const void* scores;
  void* probs;
  const float* bias;
  int64_t bias_stride;
};

// grad_scores may be grad_probs. grad_bias: null, or the float (double for kDouble) accumulator of the bias gradient
// of the rows given, laid out so that entry (key - query) + (last query of the rows) belongs to that distance.
struct BackwardRows {
  RowShape shape;
  const void* grad_probs;
  const void* probs;
  void* grad_scores;
  void* grad_bias;
};

// The loops for one instruction set. `begin` and `end` are rows.
struct RowLoops {
  const char* name;
  void (*forward)(RowType type, const ForwardRows& rows, int64_t begin, int64_t end);
  void (*backward)(RowType type, const BackwardRows& rows, int64_t begin, int64_t end);
};

extern const RowLoops kBaselineLoops;
#ifdef TRIARCH_X86_LEVELS
extern const RowLoops kAvx2Loops;
extern const RowLoops kAvx512Loops;
#endif

}  // namespace triarch
