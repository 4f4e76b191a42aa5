// Rows of logits made exponentials on CPU: checks, threads and dispatch around the loops of exponential_rows.cpp.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "../attention/cpu_levels.h"
#include "exponential_rows.h"

namespace triarch {
namespace {

// Rows given to a thread at a time hold at least this many logits; below it threads cost more than they bring.
constexpr int64_t kLogitsPerTask = 16384;

const ExponentialLoops& best_loops() { return TRIARCH_BEST_LOOPS(Exponentials); }

std::tuple<at::Tensor, at::Tensor> exponentials(const at::Tensor& logits) {
  TORCH_CHECK_VALUE(logits.dim() == 2 && (logits.stride(1) == 1 || logits.size(1) <= 1),
                    "exponentials_: logits must be [n, v] with dense rows, not ", logits.sizes(), " with strides ",
                    logits.strides());
  TORCH_CHECK_TYPE(logits.scalar_type() == at::kFloat, "exponentials_: logits must be float32, not ",
                   logits.scalar_type());
  const int64_t num_rows = logits.size(0), width = logits.size(1);
  const at::Tensor largest = at::empty({num_rows}, logits.options()), sums = at::empty_like(largest);
  const LogitRows rows{logits.mutable_data_ptr<float>(), logits.stride(0), width, largest.mutable_data_ptr<float>(),
                       sums.mutable_data_ptr<float>()};
  const int64_t rows_per_task = std::max<int64_t>(1, kLogitsPerTask / std::max<int64_t>(1, width));
  at::parallel_for(0, num_rows, rows_per_task,
                   [&](int64_t begin, int64_t end) { best_loops().exponentials(rows, begin, end); });
  return {largest, sums};
}

std::tuple<at::Tensor, at::Tensor> exponentials_meta(const at::Tensor& logits) {
  return {at::empty_symint({logits.sym_size(0)}, logits.options()),
          at::empty_symint({logits.sym_size(0)}, logits.options())};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(triarch, library) {
  // logits [n, v] become exp(logits - largest of the row); -> (largest [n], sums of the exponentials [n]).
  library.def("exponentials_(Tensor(a!) logits) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(triarch, CPU, library) { library.impl("exponentials_", &exponentials); }
TORCH_LIBRARY_IMPL(triarch, Meta, library) { library.impl("exponentials_", &exponentials_meta); }

}  // namespace triarch
