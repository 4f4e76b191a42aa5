// Checks and results of attention over key intervals, the same with and without data.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <optional>

namespace triarch {

inline void check_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const at::Tensor& intervals, const std::optional<at::Tensor>& bias) {
  TORCH_CHECK_VALUE(
      query.dim() == 4 && key.dim() == 4 && key.sym_sizes() == value.sym_sizes() &&
          query.sym_size(0) == key.sym_size(0) && query.sym_size(3) == key.sym_size(3) && key.sym_size(1) > 0 &&
          query.sym_size(1) % key.sym_size(1) == 0,
      "interval_attention: query must be [b, h, s_q, d], key and value [b, g, s_k, d] with g dividing h, not ",
      query.sym_sizes(), ", ", key.sym_sizes(), " and ", value.sym_sizes());
  TORCH_CHECK_TYPE(query.scalar_type() == key.scalar_type() && query.scalar_type() == value.scalar_type() &&
                       (query.scalar_type() == at::kFloat || query.scalar_type() == at::kBFloat16 ||
                        query.scalar_type() == at::kHalf),
                   "interval_attention: query, key and value must all be float32, bfloat16 or float16, not ",
                   query.scalar_type(), ", ", key.scalar_type(), " and ", value.scalar_type());
  TORCH_CHECK_VALUE(intervals.dim() == 3 && intervals.sym_size(0) == query.sym_size(0) &&
                        intervals.sym_size(1) == query.sym_size(2) && intervals.sym_size(2) == 2,
                    "interval_attention: intervals must be [b, s_q, 2] for queries ", query.sym_sizes(), ", not ",
                    intervals.sym_sizes());
  TORCH_CHECK_TYPE(intervals.scalar_type() == at::kInt, "interval_attention: intervals must be int32, not ",
                   intervals.scalar_type());
  if (!bias.has_value()) return;
  TORCH_CHECK_VALUE(bias->dim() == 2 && bias->sym_size(0) == query.sym_size(1) &&
                        bias->sym_size(1) == query.sym_size(2) + key.sym_size(2) - 1,
                    "interval_attention: distance_bias must be [h, s_q + s_k - 1] for queries ", query.sym_sizes(),
                    " and keys ", key.sym_sizes(), ", not ", bias->sym_sizes());
  TORCH_CHECK_TYPE(bias->scalar_type() == at::kFloat, "interval_attention: distance_bias must be float32, not ",
                   bias->scalar_type());
}

inline void check_attention_gradient(const at::Tensor& grad_context, const at::Tensor& query, const at::Tensor& context,
                                     const at::Tensor& log_sums) {
  TORCH_CHECK_VALUE(grad_context.sizes() == query.sizes() && context.sizes() == query.sizes() &&
                        grad_context.scalar_type() == query.scalar_type() &&
                        context.scalar_type() == query.scalar_type() &&
                        log_sums.numel() * query.size(3) == query.numel() && log_sums.scalar_type() == at::kFloat,
                    "interval_attention: the gradient ", grad_context.sizes(), ", the context ", context.sizes(),
                    " or the log sums ", log_sums.sizes(), " do not match the queries ", query.sizes());
}

// [b, h, s, d] whose memory is [s, b, h, d], in which the layers around attention keep their activations.
inline at::Tensor empty_by_position(const at::Tensor& like) {
  return at::empty_symint({like.sym_size(2), like.sym_size(0), like.sym_size(1), like.sym_size(3)}, like.options())
      .permute({1, 2, 0, 3});
}

inline at::Tensor empty_log_sums(const at::Tensor& query) {
  return at::empty_symint({query.sym_size(0), query.sym_size(1), query.sym_size(2)}, query.options().dtype(at::kFloat));
}

// One for each sample; no entries if it is not wanted.
inline at::Tensor empty_grad_bias(const at::Tensor& query, const at::Tensor& key, bool needs_grad_bias) {
  const auto options = query.options().dtype(at::kFloat);
  if (!needs_grad_bias) return at::empty_symint({c10::SymInt(0)}, options);
  return at::empty_symint({query.sym_size(0), query.sym_size(1), query.sym_size(2) + key.sym_size(2) - 1}, options);
}

}  // namespace triarch
