// The interval softmax on CUDA: the seam between the kernels and torch. Knows CUDA, not torch, so that the kernels
// compile, and are checked, wherever nvcc is.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace triarch {

enum class CudaType { kFloat, kBFloat16, kHalf };

// Scores [b, h, s_q, s_k], contiguous. All score-shaped pointers of one call agree modulo 16 bytes.
struct CudaShape {
  int64_t batch;
  int64_t heads;
  int64_t num_queries;
  int64_t num_keys;
  const int32_t* intervals;  // [b, s_q, 2], half-open
  float scale;
};

// probs may be scores. bias: null, or [h, s_q + s_k - 1] with `bias_stride` entries from head to head.
cudaError_t cuda_softmax_forward(CudaType type, const CudaShape& shape, const void* scores, void* probs,
                                 const float* bias, int64_t bias_stride, cudaStream_t stream);

// grad_scores may be grad_probs, or null if only the means are wanted. row_means: null, or float [b, h, s_q], gets
// the incoming gradient of each row averaged by its probabilities.
cudaError_t cuda_softmax_backward(CudaType type, const CudaShape& shape, const void* grad_probs, const void* probs,
                                  void* grad_scores, float* row_means, cudaStream_t stream);

// Slices into which the bias gradient is summed; depends on the shape alone, so results repeat bit by bit.
int64_t cuda_bias_slices(const CudaShape& shape);

// partial: float [slices, h, s_q + s_k - 1]; its sum over the slices is the gradient of the bias.
cudaError_t cuda_softmax_bias_gradient(CudaType type, const CudaShape& shape, const void* grad_probs, const void* probs,
                                       const float* row_means, float* partial, cudaStream_t stream);

}  // namespace triarch
