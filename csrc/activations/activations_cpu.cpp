// Activations of feed-forward layers as torch sees them, on CPU: checks, threads and dispatch around the loops of
// activation_rows.cpp. Their gradient is registered from Python (megatron/device/native_autograd.py).
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>

#include "../attention/cpu_levels.h"
#include "activation_rows.h"
#include "column_sums.h"

namespace triarch {
namespace {

// Rows given to a thread at a time hold at least this many numbers; below it threads cost more than they bring.
constexpr int64_t kNumbersPerTask = 16384;

const ActivationLoops& best_loops() { return TRIARCH_BEST_LOOPS(Activations); }

Activation activation_named(const std::string& name) {
  if (name == "relu") return Activation::kRelu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  TORCH_CHECK_VALUE(name == "silu", "activation: \"", name, "\" is not one of relu, gelu, gelu_tanh, silu");
  return Activation::kSilu;
}

void check_activation(const at::Tensor& input, const std::optional<at::Tensor>& bias, bool is_gated) {
  TORCH_CHECK_VALUE(input.dim() >= 1 && (!is_gated || input.sym_size(-1) % 2 == 0),
                    "activation: the input must be [..., f], or [..., 2 f] if it is gated, not ", input.sym_sizes());
  if (!bias.has_value()) return;
  TORCH_CHECK_VALUE(bias->dim() == 1 && bias->sym_size(0) == input.sym_size(-1), "activation: the bias must be [",
                    input.sym_size(-1), "] for an input ", input.sym_sizes(), ", not ", bias->sym_sizes());
  TORCH_CHECK_TYPE(bias->scalar_type() == input.scalar_type(), "activation: the input is ", input.scalar_type(),
                   ", the bias ", bias->scalar_type());
}

at::Tensor empty_output(const at::Tensor& input, bool is_gated) {
  c10::SymDimVector sizes(input.sym_sizes());
  if (is_gated) sizes.back() = sizes.back() / 2;
  return at::empty_symint(sizes, input.options());
}

bool is_output_of(const at::Tensor& output, const at::Tensor& input, bool is_gated) {
  const int64_t last = input.dim() - 1;
  return output.dim() == input.dim() && output.sizes().slice(0, last) == input.sizes().slice(0, last) &&
         output.size(-1) * (is_gated ? 2 : 1) == input.size(-1);
}

ActivationKind kind_of(const at::Tensor& output, const std::string& function, bool is_gated) {
  return {row_type(output, "activation"), activation_named(function), is_gated, output.size(-1)};
}

at::Tensor activation(const at::Tensor& input, const std::optional<at::Tensor>& bias, const std::string& function,
                      bool is_gated) {
  check_activation(input, bias, is_gated);
  const at::Tensor output = empty_output(input, is_gated);
  const ActivationKind kind = kind_of(output, function, is_gated);
  if (output.numel() == 0) return output;
  const at::Tensor own_input = input.contiguous();
  const at::Tensor own_bias = bias.has_value() ? bias->contiguous() : at::Tensor();
  const ActivationForward rows{own_input.const_data_ptr(), bias.has_value() ? own_bias.const_data_ptr() : nullptr,
                               output.mutable_data_ptr()};
  at::parallel_for(0, output.numel() / kind.width, std::max<int64_t>(1, kNumbersPerTask / kind.width),
                   [&](int64_t begin, int64_t end) { best_loops().forward(kind, rows, begin, end); });
  return output;
}

std::tuple<at::Tensor, at::Tensor> activation_backward(const at::Tensor& grad_output, const at::Tensor& input,
                                                       const std::optional<at::Tensor>& bias,
                                                       const std::string& function, bool is_gated) {
  check_activation(input, bias, is_gated);
  TORCH_CHECK_VALUE(grad_output.scalar_type() == input.scalar_type() && is_output_of(grad_output, input, is_gated),
                    "activation: the gradient ", grad_output.sizes(), " does not match the input ", input.sizes());
  const ActivationKind kind = kind_of(grad_output, function, is_gated);
  const at::Tensor own_input = input.contiguous(), own_grad_output = grad_output.contiguous();
  const at::Tensor own_bias = bias.has_value() ? bias->contiguous() : at::Tensor();
  const at::Tensor grad_input = at::empty_like(own_input);
  ActivationBackward rows{own_grad_output.const_data_ptr(), own_input.const_data_ptr(), nullptr,
                          grad_input.mutable_data_ptr(), nullptr};
  const int64_t num_rows = kind.width == 0 ? 0 : grad_output.numel() / kind.width;
  if (!bias.has_value()) {
    at::parallel_for(0, num_rows, std::max<int64_t>(1, kNumbersPerTask / std::max<int64_t>(1, kind.width)),
                     [&](int64_t begin, int64_t end) { best_loops().backward(kind, rows, begin, end); });
    return {grad_input, at::empty({0}, input.options())};
  }
  rows.bias = own_bias.const_data_ptr();
  const at::Tensor grad_bias =
      column_sums(num_rows, input.size(-1), input.options().dtype(compute_type(input.scalar_type())),
                  [&](int64_t begin, int64_t end, void* sums) {
                    ActivationBackward own = rows;
                    own.grad_bias = sums;
                    best_loops().backward(kind, own, begin, end);
                  });
  return {grad_input, grad_bias.to(input.scalar_type())};
}

at::Tensor activation_meta(const at::Tensor& input, const std::optional<at::Tensor>& bias, const std::string& function,
                           bool is_gated) {
  check_activation(input, bias, is_gated);
  activation_named(function);
  return empty_output(input, is_gated);
}

std::tuple<at::Tensor, at::Tensor> activation_backward_meta(const at::Tensor&, const at::Tensor& input,
                                                            const std::optional<at::Tensor>& bias, const std::string&,
                                                            bool) {
  return {at::empty_like(input, {}, at::MemoryFormat::Contiguous),
          bias.has_value() ? at::empty_symint({bias->sym_size(0)}, input.options())
                           : at::empty_symint({c10::SymInt(0)}, input.options())};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(triarch, library) {
  // input [..., f] -> function(input + bias), or [..., 2 f] -> function(first half) * second half, both with the bias.
  library.def("activation(Tensor input, Tensor? bias, str function, bool is_gated) -> Tensor");
  // -> (grad_input, grad_bias); grad_bias has no entries without a bias.
  library.def(
      "activation_backward(Tensor grad_output, Tensor input, Tensor? bias, str function, bool is_gated)"
      " -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(triarch, CPU, library) {
  library.impl("activation", &activation);
  library.impl("activation_backward", &activation_backward);
}

TORCH_LIBRARY_IMPL(triarch, Meta, library) {
  library.impl("activation", &activation_meta);
  library.impl("activation_backward", &activation_backward_meta);
}

}  // namespace triarch
