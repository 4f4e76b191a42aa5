// The interval softmax on CPU: checks, threads and dispatch around the loops of softmax_rows.cpp.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>

#include "checks.h"
#include "cpu_levels.h"
#include "softmax_rows.h"

namespace triarch {
namespace {

// Rows given to a thread at a time hold at least this many scores; below it threads cost more than they bring.
constexpr int64_t kScoresPerTask = 16384;
// Queries whose bias gradient is summed into one buffer. Fixed, so that the sum does not depend on the threads.
constexpr int64_t kQueriesPerBiasTask = 64;

const RowLoops& best_loops() { return TRIARCH_BEST_LOOPS(Loops); }

std::string cpu_loops() { return best_loops().name; }

RowShape row_shape(const at::Tensor& scores, const at::Tensor& contiguous_intervals, double scale) {
  return {scores.size(1), scores.size(2), scores.size(3), contiguous_intervals.const_data_ptr<int32_t>(), scale};
}

int64_t rows_per_task(int64_t num_keys) {
  return std::max<int64_t>(1, kScoresPerTask / std::max<int64_t>(1, num_keys));
}

void forward_into(const at::Tensor& probs, const at::Tensor& scores, const at::Tensor& intervals,
                  const std::optional<at::Tensor>& distance_bias, double scale) {
  if (scores.numel() == 0) return;
  const at::Tensor own_intervals = intervals.contiguous();
  ForwardRows rows{row_shape(scores, own_intervals, scale), scores.const_data_ptr(), probs.mutable_data_ptr(), nullptr,
                   0};
  std::optional<at::Tensor> bias;
  if (distance_bias.has_value()) {
    bias = distance_bias->stride(1) == 1 ? *distance_bias : distance_bias->contiguous();
    rows.bias = bias->const_data_ptr<float>();
    rows.bias_stride = bias->stride(0);
  }
  const RowType type = row_type(scores, "interval_softmax");
  const RowLoops& loops = best_loops();
  const int64_t num_rows = scores.numel() / scores.size(3);
  at::parallel_for(0, num_rows, rows_per_task(scores.size(3)),
                   [&](int64_t begin, int64_t end) { loops.forward(type, rows, begin, end); });
}

void backward_into(const at::Tensor& grad_scores, const at::Tensor& grad_probs, const at::Tensor& probs,
                   const at::Tensor& intervals, double scale) {
  if (probs.numel() == 0) return;
  const at::Tensor own_intervals = intervals.contiguous();
  const BackwardRows rows{row_shape(probs, own_intervals, scale), grad_probs.const_data_ptr(), probs.const_data_ptr(),
                          grad_scores.mutable_data_ptr(), nullptr};
  const RowType type = row_type(probs, "interval_softmax");
  const RowLoops& loops = best_loops();
  const int64_t num_rows = probs.numel() / probs.size(3);
  at::parallel_for(0, num_rows, rows_per_task(probs.size(3)),
                   [&](int64_t begin, int64_t end) { loops.backward(type, rows, begin, end); });
}

// Gradient of the distance bias beside that of the scores. Each task of some queries of one head of one sample sums
// into its own buffer; the buffers are then added in a fixed order.
template <class Compute>
at::Tensor backward_with_bias_into(const at::Tensor& grad_scores, const at::Tensor& grad_probs, const at::Tensor& probs,
                                   const at::Tensor& intervals, double scale) {
  const int64_t batch = probs.size(0), heads = probs.size(1), num_queries = probs.size(2), num_keys = probs.size(3);
  const at::Tensor grad_bias = at::zeros({heads, num_queries + num_keys - 1}, probs.options().dtype(at::kFloat));
  if (probs.numel() == 0) return grad_bias;
  const at::Tensor own_intervals = intervals.contiguous();
  const BackwardRows rows{row_shape(probs, own_intervals, scale), grad_probs.const_data_ptr(), probs.const_data_ptr(),
                          grad_scores.mutable_data_ptr(), nullptr};
  const RowType type = row_type(probs, "interval_softmax");
  const RowLoops& loops = best_loops();

  const int64_t tasks_per_head = (num_queries + kQueriesPerBiasTask - 1) / kQueriesPerBiasTask;
  const int64_t width = std::min(kQueriesPerBiasTask, num_queries) + num_keys - 1;
  const at::Tensor partial = at::zeros({batch * heads * tasks_per_head, width},
                                       probs.options().dtype(c10::CppTypeToScalarType<Compute>::value));
  Compute* const partial_data = partial.mutable_data_ptr<Compute>();
  at::parallel_for(0, partial.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first_row = task / tasks_per_head * num_queries;
      const int64_t first_query = task % tasks_per_head * kQueriesPerBiasTask;
      const int64_t last_query = std::min(first_query + kQueriesPerBiasTask, num_queries);
      BackwardRows own = rows;
      own.grad_bias = partial_data + task * width;
      loops.backward(type, own, first_row + first_query, first_row + last_query);
    }
  });

  float* const grad_bias_data = grad_bias.mutable_data_ptr<float>();
  at::parallel_for(0, heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      float* const row = grad_bias_data + head * (num_queries + num_keys - 1);
      for (int64_t sample = 0; sample < batch; ++sample) {
        for (int64_t slot = 0; slot < tasks_per_head; ++slot) {
          const int64_t last_query = std::min((slot + 1) * kQueriesPerBiasTask, num_queries);
          const int64_t num_distances = last_query - slot * kQueriesPerBiasTask + num_keys - 1;
          const Compute* const own = partial_data + ((sample * heads + head) * tasks_per_head + slot) * width;
          float* const target = row + (num_queries - last_query);
          for (int64_t i = 0; i < num_distances; ++i) target[i] += static_cast<float>(own[i]);
        }
      }
    }
  });
  return grad_bias;
}

at::Tensor backward_any_into(const at::Tensor& grad_scores, const at::Tensor& grad_probs, const at::Tensor& probs,
                             const at::Tensor& intervals, bool has_bias, double scale) {
  if (!has_bias) {
    backward_into(grad_scores, grad_probs, probs, intervals, scale);
    return at::empty({0}, probs.options().dtype(at::kFloat));
  }
  if (probs.scalar_type() == at::kDouble) {
    return backward_with_bias_into<double>(grad_scores, grad_probs, probs, intervals, scale);
  }
  return backward_with_bias_into<float>(grad_scores, grad_probs, probs, intervals, scale);
}

at::Tensor interval_softmax(const at::Tensor& scores, const at::Tensor& intervals,
                            const std::optional<at::Tensor>& distance_bias, double scale) {
  check_scores(scores, intervals);
  check_bias(scores, distance_bias);
  const at::Tensor own_scores = scores.contiguous();
  const at::Tensor probs = at::empty_like(own_scores);
  forward_into(probs, own_scores, intervals, distance_bias, scale);
  return probs;
}

void interval_softmax_in_place(const at::Tensor& scores, const at::Tensor& intervals,
                               const std::optional<at::Tensor>& distance_bias, double scale) {
  check_scores(scores, intervals);
  check_bias(scores, distance_bias);
  check_in_place(scores);
  forward_into(scores, scores, intervals, distance_bias, scale);
}

std::tuple<at::Tensor, at::Tensor> interval_softmax_backward(const at::Tensor& grad_probs, const at::Tensor& probs,
                                                             const at::Tensor& intervals, bool has_bias, double scale) {
  check_gradient(grad_probs, probs, intervals);
  const at::Tensor own_grad_probs = grad_probs.contiguous(), own_probs = probs.contiguous();
  const at::Tensor grad_scores = at::empty_like(own_probs);
  const at::Tensor grad_bias = backward_any_into(grad_scores, own_grad_probs, own_probs, intervals, has_bias, scale);
  return {grad_scores, grad_bias};
}

at::Tensor interval_softmax_backward_in_place(const at::Tensor& grad_probs, const at::Tensor& probs,
                                              const at::Tensor& intervals, bool has_bias, double scale) {
  check_gradient(grad_probs, probs, intervals);
  check_in_place(grad_probs);
  return backward_any_into(grad_probs, grad_probs, probs.contiguous(), intervals, has_bias, scale);
}

}  // namespace

TORCH_LIBRARY_IMPL(triarch, CPU, library) {
  library.impl("interval_softmax", &interval_softmax);
  library.impl("interval_softmax_", &interval_softmax_in_place);
  library.impl("interval_softmax_backward", &interval_softmax_backward);
  library.impl("interval_softmax_backward_", &interval_softmax_backward_in_place);
}

TORCH_LIBRARY_IMPL(triarch, CompositeExplicitAutograd, library) { library.impl("cpu_loops", &cpu_loops); }

}  // namespace triarch
