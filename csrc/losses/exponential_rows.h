// Rows of logits made exponentials on CPU: the seam between the vector loops and torch.
#pragma once

#include <cstdint>

namespace triarch {

// Row r of [n, width] float32 begins at rows + r * row_stride.
struct LogitRows {
  float* rows;
  int64_t row_stride;
  int64_t width;
  float* largest;  // [n]
  float* sums;     // [n]
};

// For each row of begin..end: x becomes exp(x - largest x of the row), and their sum is kept.
struct ExponentialLoops {
  void (*exponentials)(const LogitRows& logits, int64_t begin, int64_t end);
};

extern const ExponentialLoops kBaselineExponentials;
#ifdef TRIARCH_X86_LEVELS
extern const ExponentialLoops kAvx2Exponentials;
extern const ExponentialLoops kAvx512Exponentials;
#endif

}  // namespace triarch
