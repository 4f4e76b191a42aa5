// Attention over key intervals on CPU: checks, threads and dispatch around the loops of attention_tiles.cpp.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "attention_checks.h"
#include "attention_tiles.h"
#include "cpu_levels.h"

namespace triarch {
namespace {

const AttentionLoops& best_loops() { return TRIARCH_BEST_LOOPS(Attention); }

at::Tensor with_dense_rows(const at::Tensor& tensor) { return tensor.stride(3) == 1 ? tensor : tensor.contiguous(); }

Strided<const void> read(const at::Tensor& tensor) {
  return {tensor.const_data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

Strided<void> write(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

// `intervals` and `bias` must outlive the shape.
AttentionShape attention_shape(const at::Tensor& query, const at::Tensor& key, const at::Tensor& intervals,
                               const std::optional<at::Tensor>& bias, double scale) {
  return {row_type(query, "interval_attention"),
          query.size(1),
          key.size(1),
          query.size(2),
          key.size(2),
          query.size(3),
          intervals.const_data_ptr<int32_t>(),
          bias ? bias->const_data_ptr<float>() : nullptr,
          bias ? bias->stride(0) : 0,
          static_cast<float>(scale)};
}

std::optional<at::Tensor> with_dense_rows(const std::optional<at::Tensor>& bias) {
  return bias ? std::optional(bias->contiguous()) : bias;
}

// work(sample, group, scratch) for every group of every sample, each on one thread: a group's key gradients are sums
// over all its queries, so that more threads than samples x groups stand idle.
template <class Work>
void for_each_group(const at::Tensor& key, int64_t scratch_size, const Work& work) {
  at::parallel_for(0, key.size(0) * key.size(1), 1, [&](int64_t begin, int64_t end) {
    const at::Tensor scratch = at::empty({scratch_size}, key.options().dtype(at::kFloat));
    for (int64_t index = begin; index < end; ++index) {
      work(index / key.size(1), index % key.size(1), scratch.mutable_data_ptr<float>());
    }
  });
}

std::tuple<at::Tensor, at::Tensor> interval_attention(const at::Tensor& query, const at::Tensor& key,
                                                      const at::Tensor& value, const at::Tensor& intervals,
                                                      const std::optional<at::Tensor>& distance_bias, double scale) {
  check_attention(query, key, value, intervals, distance_bias);
  const at::Tensor own_query = with_dense_rows(query), own_key = with_dense_rows(key),
                   own_value = with_dense_rows(value);
  const at::Tensor own_intervals = intervals.contiguous();
  const std::optional<at::Tensor> own_bias = with_dense_rows(distance_bias);
  const at::Tensor context = empty_by_position(query), log_sums = empty_log_sums(query);
  const AttentionForward call{attention_shape(query, key, own_intervals, own_bias, scale),
                              read(own_query),
                              read(own_key),
                              read(own_value),
                              write(context),
                              log_sums.mutable_data_ptr<float>()};
  const AttentionLoops& loops = best_loops();
  for_each_group(key, loops.forward_scratch(call.shape),
                 [&](int64_t sample, int64_t group, float* scratch) { loops.forward(call, sample, group, scratch); });
  return {context, log_sums};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> interval_attention_backward(
    const at::Tensor& grad_context, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const at::Tensor& context, const at::Tensor& log_sums, const at::Tensor& intervals,
    const std::optional<at::Tensor>& distance_bias, bool needs_grad_bias, double scale) {
  check_attention(query, key, value, intervals, distance_bias);
  check_attention_gradient(grad_context, query, context, log_sums);
  const at::Tensor own_query = with_dense_rows(query), own_key = with_dense_rows(key),
                   own_value = with_dense_rows(value);
  const at::Tensor own_context = with_dense_rows(context), own_grad_context = with_dense_rows(grad_context);
  const at::Tensor own_intervals = intervals.contiguous(), own_log_sums = log_sums.contiguous();
  const std::optional<at::Tensor> own_bias = with_dense_rows(distance_bias);
  const at::Tensor grad_query = empty_by_position(query), grad_key = empty_by_position(key);
  const at::Tensor grad_value = empty_by_position(value);
  const at::Tensor grad_bias = empty_grad_bias(query, key, needs_grad_bias);
  const AttentionBackward call{attention_shape(query, key, own_intervals, own_bias, scale),
                               read(own_query),
                               read(own_key),
                               read(own_value),
                               read(own_context),
                               read(own_grad_context),
                               own_log_sums.const_data_ptr<float>(),
                               write(grad_query),
                               write(grad_key),
                               write(grad_value),
                               needs_grad_bias ? grad_bias.mutable_data_ptr<float>() : nullptr};
  const AttentionLoops& loops = best_loops();
  for_each_group(key, loops.backward_scratch(call.shape),
                 [&](int64_t sample, int64_t group, float* scratch) { loops.backward(call, sample, group, scratch); });
  return {grad_query, grad_key, grad_value, needs_grad_bias ? grad_bias.sum(0) : grad_bias};
}

}  // namespace

TORCH_LIBRARY_IMPL(triarch, CPU, library) {
  library.impl("interval_attention", &interval_attention);
  library.impl("interval_attention_backward", &interval_attention_backward);
}

}  // namespace triarch
