// Span corruption of rows of tokens; megatron/objectives/noise_spans.py is its twin in numpy and says what it does.
#pragma once

#include <cstdint>

namespace triarch {

// What every row has: its tokens, how many of them are noise, and in how many spans these lie.
struct SpanPlan {
  int64_t num_tokens;
  int64_t num_noise;
  int64_t num_spans;  // 1 .. min(num_noise, num_tokens - num_noise)

  int64_t num_clean() const { return num_tokens - num_noise; }
  int64_t num_inputs() const { return num_clean() + num_spans; }
  int64_t num_targets() const { return num_noise + num_spans; }
};

// tokens [rows, num_tokens], seeds [rows], sentinels [num_spans or more]
// -> inputs [rows, num_inputs], targets [rows, num_targets].
void corrupt_spans(const SpanPlan& plan, int64_t rows, const int32_t* tokens, const uint64_t* seeds,
                   const int32_t* sentinels, int32_t* inputs, int32_t* targets);

}  // namespace triarch
