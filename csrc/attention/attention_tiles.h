// Attention over key intervals on CPU, tile by tile: the seam between the vector loops and torch.
#pragma once

#include <cstdint>

#include "softmax_rows.h"

namespace triarch {

// [b, heads, rows, width] with any strides (counted in entries) but 1 for the last dimension.
template <class Data>
struct Strided {
  Data* data;
  int64_t sample_stride;
  int64_t head_stride;
  int64_t row_stride;
};

// Head h reads the keys of group h / (heads / groups).
struct AttentionShape {
  RowType type;  // of queries, keys, values, context and their gradients; kDouble is not supported
  int64_t heads;
  int64_t groups;
  int64_t num_queries;
  int64_t num_keys;
  int64_t width;
  const int32_t* intervals;  // [b, s_q, 2], half-open
  const float* bias;         // null, or [h, s_q + s_k - 1] with `bias_stride` entries from head to head
  int64_t bias_stride;
  float scale;
};

struct AttentionForward {
  AttentionShape shape;
  Strided<const void> query, key, value;
  Strided<void> context;
  float* log_sums;  // [b, h, s_q]: log of the sum of the exponentials, -infinity for a query that sees no key
};

struct AttentionBackward {
  AttentionShape shape;
  Strided<const void> query, key, value, context, grad_context;
  const float* log_sums;
  Strided<void> grad_query, grad_key, grad_value;
  float* grad_bias;  // null, or [b, h, s_q + s_k - 1], written whole
};

// The loops for one instruction set. A call works through the heads of one group of one sample, on one thread.
// scratch: as many floats as the functions beside it say.
struct AttentionLoops {
  int64_t (*forward_scratch)(const AttentionShape& shape);
  int64_t (*backward_scratch)(const AttentionShape& shape);
  void (*forward)(const AttentionForward& call, int64_t sample, int64_t group, float* scratch);
  void (*backward)(const AttentionBackward& call, int64_t sample, int64_t group, float* scratch);
};

extern const AttentionLoops kBaselineAttention;
#ifdef TRIARCH_X86_LEVELS
extern const AttentionLoops kAvx2Attention;
extern const AttentionLoops kAvx512Attention;
#endif

}  // namespace triarch
