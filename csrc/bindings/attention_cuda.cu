// The interval softmax on CUDA as torch sees it: checks, allocation and the current stream.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <tuple>

#include "../attention/checks.h"
#include "../attention/interval_softmax_cuda.h"

namespace triarch {
namespace {

CudaType cuda_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return CudaType::kFloat;
    case at::kBFloat16: return CudaType::kBFloat16;
    case at::kHalf: return CudaType::kHalf;
    default: TORCH_CHECK_TYPE(false, "interval_softmax: ", tensor.scalar_type(), " scores are not supported on CUDA");
  }
}

CudaShape cuda_shape(const at::Tensor& scores, const at::Tensor& contiguous_intervals, double scale) {
  TORCH_CHECK_VALUE(scores.size(2) + scores.size(3) < std::numeric_limits<int32_t>::max() / 2,
                    "interval_softmax: ", scores.sizes(), " has too many queries or keys");
  return {scores.size(0),
          scores.size(1),
          scores.size(2),
          scores.size(3),
          contiguous_intervals.const_data_ptr<int32_t>(),
          static_cast<float>(scale)};
}

// Contiguous, and at the address modulo 16 that a fresh allocation has: the kernels want all rows to agree in it.
at::Tensor aligned(const at::Tensor& tensor) {
  const at::Tensor contiguous = tensor.contiguous();
  return reinterpret_cast<uintptr_t>(contiguous.const_data_ptr()) % 16 == 0 ? contiguous : contiguous.clone();
}

void check_aligned_in_place(const at::Tensor& tensor) {
  check_in_place(tensor);
  TORCH_CHECK_VALUE(reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0,
                    "interval_softmax: a tensor changed in place must start at a multiple of 16 bytes");
}

void forward_into(const at::Tensor& probs, const at::Tensor& scores, const at::Tensor& intervals,
                  const std::optional<at::Tensor>& distance_bias, double scale) {
  const at::Tensor own_intervals = aligned(intervals);
  const CudaShape shape = cuda_shape(scores, own_intervals, scale);
  std::optional<at::Tensor> bias;
  if (distance_bias.has_value()) bias = distance_bias->stride(1) == 1 ? *distance_bias : distance_bias->contiguous();
  C10_CUDA_CHECK(cuda_softmax_forward(cuda_type(scores), shape, scores.const_data_ptr(), probs.mutable_data_ptr(),
                                      bias ? bias->const_data_ptr<float>() : nullptr, bias ? bias->stride(0) : 0,
                                      c10::cuda::getCurrentCUDAStream()));
}

// The bias gradient needs the incoming gradient whole, so it is summed before grad_scores overwrites it.
at::Tensor bias_gradient(const CudaShape& shape, const at::Tensor& grad_probs, const at::Tensor& probs) {
  const auto options = probs.options().dtype(at::kFloat);
  const int64_t num_distances = shape.num_queries + shape.num_keys - 1;
  if (probs.numel() == 0) return at::zeros({shape.heads, num_distances}, options);
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor means = at::empty({shape.batch, shape.heads, shape.num_queries}, options);
  const at::Tensor partial = at::empty({cuda_bias_slices(shape), shape.heads, num_distances}, options);
  C10_CUDA_CHECK(cuda_softmax_backward(cuda_type(probs), shape, grad_probs.const_data_ptr(), probs.const_data_ptr(),
                                       nullptr, means.mutable_data_ptr<float>(), stream));
  C10_CUDA_CHECK(cuda_softmax_bias_gradient(cuda_type(probs), shape, grad_probs.const_data_ptr(),
                                            probs.const_data_ptr(), means.const_data_ptr<float>(),
                                            partial.mutable_data_ptr<float>(), stream));
  return partial.sum(0);
}

at::Tensor backward_into(const at::Tensor& grad_scores, const at::Tensor& grad_probs, const at::Tensor& probs,
                         const at::Tensor& intervals, bool has_bias, double scale) {
  const at::Tensor own_intervals = aligned(intervals);
  const CudaShape shape = cuda_shape(probs, own_intervals, scale);
  const at::Tensor grad_bias =
      has_bias ? bias_gradient(shape, grad_probs, probs) : at::empty({0}, probs.options().dtype(at::kFloat));
  C10_CUDA_CHECK(cuda_softmax_backward(cuda_type(probs), shape, grad_probs.const_data_ptr(), probs.const_data_ptr(),
                                       grad_scores.mutable_data_ptr(), nullptr, c10::cuda::getCurrentCUDAStream()));
  return grad_bias;
}

at::Tensor interval_softmax(const at::Tensor& scores, const at::Tensor& intervals,
                            const std::optional<at::Tensor>& distance_bias, double scale) {
  check_scores(scores, intervals);
  check_bias(scores, distance_bias);
  const c10::cuda::CUDAGuard guard(scores.device());
  const at::Tensor own_scores = aligned(scores);
  const at::Tensor probs = at::empty_like(own_scores);
  forward_into(probs, own_scores, intervals, distance_bias, scale);
  return probs;
}

void interval_softmax_in_place(const at::Tensor& scores, const at::Tensor& intervals,
                               const std::optional<at::Tensor>& distance_bias, double scale) {
  check_scores(scores, intervals);
  check_bias(scores, distance_bias);
  check_aligned_in_place(scores);
  const c10::cuda::CUDAGuard guard(scores.device());
  forward_into(scores, scores, intervals, distance_bias, scale);
}

std::tuple<at::Tensor, at::Tensor> interval_softmax_backward(const at::Tensor& grad_probs, const at::Tensor& probs,
                                                             const at::Tensor& intervals, bool has_bias, double scale) {
  check_gradient(grad_probs, probs, intervals);
  const c10::cuda::CUDAGuard guard(probs.device());
  const at::Tensor own_grad_probs = aligned(grad_probs), own_probs = aligned(probs);
  const at::Tensor grad_scores = at::empty_like(own_probs);
  const at::Tensor grad_bias = backward_into(grad_scores, own_grad_probs, own_probs, intervals, has_bias, scale);
  return {grad_scores, grad_bias};
}

at::Tensor interval_softmax_backward_in_place(const at::Tensor& grad_probs, const at::Tensor& probs,
                                              const at::Tensor& intervals, bool has_bias, double scale) {
  check_gradient(grad_probs, probs, intervals);
  check_aligned_in_place(grad_probs);
  const c10::cuda::CUDAGuard guard(probs.device());
  return backward_into(grad_probs, grad_probs, aligned(probs), intervals, has_bias, scale);
}

}  // namespace

TORCH_LIBRARY_IMPL(triarch, CUDA, library) {
  library.impl("interval_softmax", &interval_softmax);
  library.impl("interval_softmax_", &interval_softmax_in_place);
  library.impl("interval_softmax_backward", &interval_softmax_backward);
  library.impl("interval_softmax_backward_", &interval_softmax_backward_in_place);
}

}  // namespace triarch
