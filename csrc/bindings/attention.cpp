// The native attention ops as torch sees them: names, signatures, and shapes without data (meta kernels).
// Their gradients are registered from Python (megatron/device/native_autograd.py).
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "../attention/attention_checks.h"

namespace triarch {
namespace {

at::Tensor softmax_meta(const at::Tensor& scores, const at::Tensor&, const std::optional<at::Tensor>&, double) {
  return at::empty_like(scores, {}, at::MemoryFormat::Contiguous);
}

void softmax_in_place_meta(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, double) {}

at::Tensor grad_bias_meta(const at::Tensor& probs, bool has_bias) {
  const auto options = probs.options().dtype(at::kFloat);
  if (!has_bias) return at::empty_symint({c10::SymInt(0)}, options);
  return at::empty_symint({probs.sym_size(1), probs.sym_size(2) + probs.sym_size(3) - 1}, options);
}

std::tuple<at::Tensor, at::Tensor> backward_meta(const at::Tensor&, const at::Tensor& probs, const at::Tensor&,
                                                 bool has_bias, double) {
  return {at::empty_like(probs, {}, at::MemoryFormat::Contiguous), grad_bias_meta(probs, has_bias)};
}

at::Tensor backward_in_place_meta(const at::Tensor&, const at::Tensor& probs, const at::Tensor&, bool has_bias,
                                  double) {
  return grad_bias_meta(probs, has_bias);
}

std::tuple<at::Tensor, at::Tensor> attention_meta(const at::Tensor& query, const at::Tensor& key,
                                                  const at::Tensor& value, const at::Tensor& intervals,
                                                  const std::optional<at::Tensor>& distance_bias, double) {
  check_attention(query, key, value, intervals, distance_bias);
  return {empty_by_position(query), empty_log_sums(query)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> attention_backward_meta(
    const at::Tensor&, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor&,
    const at::Tensor&, const at::Tensor& intervals, const std::optional<at::Tensor>& distance_bias,
    bool needs_grad_bias, double) {
  check_attention(query, key, value, intervals, distance_bias);
  const at::Tensor grad_bias = empty_grad_bias(query, key, needs_grad_bias);
  return {empty_by_position(query), empty_by_position(key), empty_by_position(value),
          needs_grad_bias ? grad_bias.sum(0) : grad_bias};
}

}  // namespace

TORCH_LIBRARY(triarch, library) {
  // scores [b, h, s_q, s_k]; intervals int32 [b, s_q, 2]; distance_bias float32 [h, s_q + s_k - 1].
  library.def("interval_softmax(Tensor scores, Tensor intervals, Tensor? distance_bias, float scale) -> Tensor");
  library.def("interval_softmax_(Tensor(a!) scores, Tensor intervals, Tensor? distance_bias, float scale) -> ()");
  // -> (grad_scores, grad_bias); grad_bias has no entries without has_bias.
  library.def(
      "interval_softmax_backward(Tensor grad_probs, Tensor probs, Tensor intervals, bool has_bias, float scale)"
      " -> (Tensor, Tensor)");
  // grad_probs becomes grad_scores; -> grad_bias.
  library.def(
      "interval_softmax_backward_(Tensor(a!) grad_probs, Tensor probs, Tensor intervals, bool has_bias, float scale)"
      " -> Tensor");
  // query [b, h, s_q, d], key and value [b, g, s_k, d] -> (context [b, h, s_q, d], log_sums float32 [b, h, s_q]).
  library.def(
      "interval_attention(Tensor query, Tensor key, Tensor value, Tensor intervals, Tensor? distance_bias, float scale)"
      " -> (Tensor, Tensor)");
  // -> (grad_query, grad_key, grad_value, grad_bias); grad_bias has no entries if it is not needed.
  library.def(
      "interval_attention_backward(Tensor grad_context, Tensor query, Tensor key, Tensor value, Tensor context,"
      " Tensor log_sums, Tensor intervals, Tensor? distance_bias, bool needs_grad_bias, float scale)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
  // The instruction set that the CPU kernels use on this machine.
  library.def("cpu_loops() -> str");
}

TORCH_LIBRARY_IMPL(triarch, Meta, library) {
  library.impl("interval_softmax", &softmax_meta);
  library.impl("interval_softmax_", &softmax_in_place_meta);
  library.impl("interval_softmax_backward", &backward_meta);
  library.impl("interval_softmax_backward_", &backward_in_place_meta);
  library.impl("interval_attention", &attention_meta);
  library.impl("interval_attention_backward", &attention_backward_meta);
}

}  // namespace triarch
