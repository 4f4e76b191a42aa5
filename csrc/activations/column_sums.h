// Sums over rows that many threads take part in, and that do not depend on how many.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>

namespace triarch {

// Rows whose terms are added into one accumulator. Fixed, so that no sum depends on the threads.
constexpr int64_t kRowsPerBlock = 32;
// Columns that a thread adds up at a time.
constexpr int64_t kColumnsPerTask = 256;

// Calls visit(begin, end, accumulators), begin and end being rows, for each block of rows of [num_rows, width]; returns
// the sums of the accumulators, float64 [width]. `visit` gets them filled with zeros, of the dtype that `accumulate`
// has.
template <class Visit>
at::Tensor column_sums(int64_t num_rows, int64_t width, const at::TensorOptions& accumulate, const Visit& visit) {
  const int64_t num_blocks = (num_rows + kRowsPerBlock - 1) / kRowsPerBlock;
  const at::Tensor blocks = at::zeros({num_blocks, width}, accumulate);
  char* const data = static_cast<char*>(blocks.mutable_data_ptr());
  const int64_t bytes = width * static_cast<int64_t>(blocks.element_size());
  at::parallel_for(0, num_blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kRowsPerBlock;
      visit(first, std::min(first + kRowsPerBlock, num_rows), data + block * bytes);
    }
  });
  const at::Tensor sums = at::zeros({width}, accumulate.dtype(at::kDouble));
  double* const sum = sums.mutable_data_ptr<double>();
  const auto add_up = [&](const auto* terms) {
    at::parallel_for(0, width, kColumnsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t block = 0; block < num_blocks; ++block) {
        for (int64_t column = begin; column < end; ++column) sum[column] += terms[block * width + column];
      }
    });
  };
  if (blocks.scalar_type() == at::kDouble) {
    add_up(blocks.const_data_ptr<double>());
  } else {
    add_up(blocks.const_data_ptr<float>());
  }
  return sums;
}

// The dtype that rows of `dtype` are computed in.
inline at::ScalarType compute_type(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

}  // namespace triarch
