// The vector loops behind the cross entropy on CPU, compiled once for each instruction set (TRIARCH_LOOPS names it).
//
// A row of a vocabulary fits the first or second-level cache, so the logits come from memory once instead of four
// times. No inline function of the standard library may be called here; ../attention/softmax_rows.cpp says why.
#include "exponential_rows.h"

#include "../attention/row_scalars.h"

namespace triarch {
namespace {

void exponentials(const LogitRows& logits, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    float* const row = logits.rows + r * logits.row_stride;
    // The maximum skips NaN; the sum does not, so a NaN among the logits reaches the loss.
    float largest = -__builtin_inff();
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < logits.width; ++i) largest = row[i] > largest ? row[i] : largest;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < logits.width; ++i) {
      row[i] = exp_nonpositive(row[i] - largest);
      sum += row[i];
    }
    logits.largest[r] = largest;
    logits.sums[r] = sum;
  }
}

}  // namespace

extern const ExponentialLoops TRIARCH_LOOPS = {exponentials};

}  // namespace triarch
