// Checks and shapes shared by the CPU and CUDA sides of the interval softmax.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <optional>

namespace triarch {

inline void check_scores(const at::Tensor& scores, const at::Tensor& intervals) {
  TORCH_CHECK_VALUE(scores.dim() == 4, "interval_softmax: scores must be [b, h, s_q, s_k], not ", scores.sizes());
  TORCH_CHECK_VALUE(intervals.dim() == 3 && intervals.size(0) == scores.size(0) &&
                        intervals.size(1) == scores.size(2) && intervals.size(2) == 2,
                    "interval_softmax: intervals must be [b, s_q, 2] for scores ", scores.sizes(), ", not ",
                    intervals.sizes());
  TORCH_CHECK_TYPE(intervals.scalar_type() == at::kInt, "interval_softmax: intervals must be int32, not ",
                   intervals.scalar_type());
  TORCH_CHECK_VALUE(intervals.device() == scores.device(), "interval_softmax: scores are on ", scores.device(),
                    ", intervals on ", intervals.device());
}

inline void check_bias(const at::Tensor& scores, const std::optional<at::Tensor>& bias) {
  if (!bias.has_value()) return;
  TORCH_CHECK_VALUE(
      bias->dim() == 2 && bias->size(0) == scores.size(1) && bias->size(1) == scores.size(2) + scores.size(3) - 1,
      "interval_softmax: distance_bias must be [h, s_q + s_k - 1] for scores ", scores.sizes(), ", not ",
      bias->sizes());
  TORCH_CHECK_TYPE(bias->scalar_type() == at::kFloat, "interval_softmax: distance_bias must be float32, not ",
                   bias->scalar_type());
  TORCH_CHECK_VALUE(bias->device() == scores.device(), "interval_softmax: scores are on ", scores.device(),
                    ", distance_bias on ", bias->device());
}

inline void check_gradient(const at::Tensor& grad_probs, const at::Tensor& probs, const at::Tensor& intervals) {
  check_scores(probs, intervals);
  TORCH_CHECK_VALUE(grad_probs.sizes() == probs.sizes() && grad_probs.scalar_type() == probs.scalar_type(),
                    "interval_softmax: the gradient ", grad_probs.sizes(), " does not match the probabilities ",
                    probs.sizes());
}

// In-place ops cannot work on a copy.
inline void check_in_place(const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(tensor.is_contiguous(), "interval_softmax: only a contiguous tensor is changed in place");
}

}  // namespace triarch
