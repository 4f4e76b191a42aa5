// RMSNorm as torch sees it, on CPU: checks, threads and dispatch around the loops of rms_norm_rows.cpp. Its gradient is
// registered from Python (megatron/device/native_autograd.py).
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "../activations/column_sums.h"
#include "../attention/cpu_levels.h"
#include "rms_norm_rows.h"

namespace triarch {
namespace {

// Rows given to a thread at a time hold at least this many numbers; below it threads cost more than they bring.
constexpr int64_t kNumbersPerTask = 16384;

const RmsNormLoops& best_loops() { return TRIARCH_BEST_LOOPS(RmsNorms); }

void check_rms_norm(const at::Tensor& input, const at::Tensor& weight) {
  TORCH_CHECK_VALUE(input.dim() >= 1 && weight.dim() == 1 && weight.sym_size(0) == input.sym_size(-1),
                    "rms_norm: the weight must be [h] for an input [..., h]; they are ", weight.sym_sizes(), " and ",
                    input.sym_sizes());
  TORCH_CHECK_TYPE(weight.scalar_type() == input.scalar_type(), "rms_norm: the input is ", input.scalar_type(),
                   ", the weight ", weight.scalar_type());
}

at::Tensor empty_inverses(const at::Tensor& input) {
  return at::empty_symint(input.sym_sizes().slice(0, input.dim() - 1),
                          input.options().dtype(compute_type(input.scalar_type())));
}

int64_t rows_of(const at::Tensor& input) { return input.size(-1) == 0 ? 0 : input.numel() / input.size(-1); }

std::tuple<at::Tensor, at::Tensor> rms_norm(const at::Tensor& input, const at::Tensor& weight, double eps) {
  check_rms_norm(input, weight);
  const RmsNormKind kind{row_type(input, "rms_norm"), input.size(-1), eps};
  const at::Tensor own_input = input.contiguous(), own_weight = weight.contiguous();
  const at::Tensor output = at::empty_like(own_input), inverses = empty_inverses(input);
  const RmsNormForward rows{own_input.const_data_ptr(), own_weight.const_data_ptr(), output.mutable_data_ptr(),
                            inverses.mutable_data_ptr()};
  at::parallel_for(0, rows_of(input), std::max<int64_t>(1, kNumbersPerTask / std::max<int64_t>(1, kind.width)),
                   [&](int64_t begin, int64_t end) { best_loops().forward(kind, rows, begin, end); });
  return {output, inverses};
}

std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad_output, const at::Tensor& input,
                                                     const at::Tensor& weight, const at::Tensor& inverses) {
  check_rms_norm(input, weight);
  TORCH_CHECK_VALUE(grad_output.sizes() == input.sizes() && grad_output.scalar_type() == input.scalar_type(),
                    "rms_norm: the gradient ", grad_output.sizes(), " does not match the input ", input.sizes());
  const auto accumulate = input.options().dtype(compute_type(input.scalar_type()));
  const auto sizes_of_inverses = input.sizes().slice(0, input.dim() - 1);
  TORCH_CHECK_VALUE(inverses.sizes() == sizes_of_inverses && inverses.dtype() == accumulate.dtype(),
                    "rms_norm: the inverses ", inverses.sizes(), " are not those of the input ", input.sizes());
  const RmsNormKind kind{row_type(input, "rms_norm"), input.size(-1), 0.0};
  const at::Tensor own_grad_output = grad_output.contiguous(), own_input = input.contiguous();
  const at::Tensor own_weight = weight.contiguous(), own_inverses = inverses.contiguous();
  const at::Tensor grad_input = at::empty_like(own_input);
  const RmsNormBackward rows{own_grad_output.const_data_ptr(), own_input.const_data_ptr(),
                             own_weight.const_data_ptr(),      own_inverses.const_data_ptr(),
                             grad_input.mutable_data_ptr(),    nullptr};
  const at::Tensor grad_weight =
      column_sums(rows_of(input), kind.width, accumulate, [&](int64_t begin, int64_t end, void* sums) {
        RmsNormBackward own = rows;
        own.grad_weight = sums;
        best_loops().backward(kind, own, begin, end);
      });
  return {grad_input, grad_weight.to(weight.scalar_type())};
}

std::tuple<at::Tensor, at::Tensor> rms_norm_meta(const at::Tensor& input, const at::Tensor& weight, double) {
  check_rms_norm(input, weight);
  return {at::empty_like(input, {}, at::MemoryFormat::Contiguous), empty_inverses(input)};
}

std::tuple<at::Tensor, at::Tensor> rms_norm_backward_meta(const at::Tensor&, const at::Tensor& input,
                                                          const at::Tensor& weight, const at::Tensor&) {
  return {at::empty_like(input, {}, at::MemoryFormat::Contiguous),
          at::empty_like(weight, {}, at::MemoryFormat::Contiguous)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(triarch, library) {
  // input [..., h], weight [h] -> (input / root * weight, 1 / root), root [...] = sqrt(mean of squares + eps).
  // 1 / root is float32, or float64 with a float64 input.
  library.def("rms_norm(Tensor input, Tensor weight, float eps) -> (Tensor, Tensor)");
  // -> (grad_input, grad_weight).
  library.def(
      "rms_norm_backward(Tensor grad_output, Tensor input, Tensor weight, Tensor inverses) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(triarch, CPU, library) {
  library.impl("rms_norm", &rms_norm);
  library.impl("rms_norm_backward", &rms_norm_backward);
}

TORCH_LIBRARY_IMPL(triarch, Meta, library) {
  library.impl("rms_norm", &rms_norm_meta);
  library.impl("rms_norm_backward", &rms_norm_backward_meta);
}

}  // namespace triarch
