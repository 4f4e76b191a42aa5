// The vector loops of activations on CPU, compiled once for each instruction set (TRIARCH_LOOPS names it).
//
// Each pass reads and writes every number once; backward computes the activation again instead of reading it. No inline
// function of the standard library may be called here; ../attention/softmax_rows.cpp says why.
#include "activation_rows.h"

#include "activation_functions.h"

namespace triarch {
namespace {

template <bool kValue>
struct Known {
  static constexpr bool value = kValue;
};

// What is known of rows when a loop over them is compiled.
template <class TypeOfRows, class FunctionOfRows, bool kHasGates, bool kAddsBias>
struct Loop {
  using Type = TypeOfRows;
  using Function = FunctionOfRows;
  using Storage = typename Type::Storage;
  using Compute = typename Type::Compute;
  static constexpr bool kGated = kHasGates;
  static constexpr bool kBias = kAddsBias;

  static Compute load(const Storage* input, const Storage* bias, int64_t i) {
    if constexpr (kBias) return Type::load(input[i]) + Type::load(bias[i]);
    return Type::load(input[i]);
  }
};

template <class L>
void forward_rows(int64_t width, const ActivationForward& rows, int64_t begin, int64_t end) {
  using Storage = typename L::Storage;
  const int64_t input_width = L::kGated ? 2 * width : width;
  const Storage* const bias = static_cast<const Storage*>(rows.bias);
  for (int64_t row = begin; row < end; ++row) {
    const Storage* const input = static_cast<const Storage*>(rows.input) + row * input_width;
    Storage* const output = static_cast<Storage*>(rows.output) + row * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      typename L::Compute result = L::Function::value(L::load(input, bias, i));
      if constexpr (L::kGated) result *= L::load(input, bias, width + i);
      output[i] = L::Type::store(result);
    }
  }
}

template <class L>
void backward_rows(int64_t width, const ActivationBackward& rows, int64_t begin, int64_t end) {
  using Storage = typename L::Storage;
  using Compute = typename L::Compute;
  const int64_t input_width = L::kGated ? 2 * width : width;
  const Storage* const bias = static_cast<const Storage*>(rows.bias);
  Compute* const grad_bias = static_cast<Compute*>(rows.grad_bias);
  for (int64_t row = begin; row < end; ++row) {
    const Storage* const grad_output = static_cast<const Storage*>(rows.grad_output) + row * width;
    const Storage* const input = static_cast<const Storage*>(rows.input) + row * input_width;
    Storage* const grad_input = static_cast<Storage*>(rows.grad_input) + row * input_width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      const Point<Compute> at = L::Function::point(L::load(input, bias, i));
      const Compute grad = L::Type::load(grad_output[i]);
      Compute grad_gate = grad * at.slope;
      if constexpr (L::kGated) {
        grad_gate *= L::load(input, bias, width + i);
        const Compute grad_value = grad * at.value;
        grad_input[width + i] = L::Type::store(grad_value);
        if constexpr (L::kBias) grad_bias[width + i] += grad_value;
      }
      grad_input[i] = L::Type::store(grad_gate);
      if constexpr (L::kBias) grad_bias[i] += grad_gate;
    }
  }
}

template <class Visit>
void with_type(RowType type, Visit visit) {
  switch (type) {
    case RowType::kFloat: return visit(Float{});
    case RowType::kDouble: return visit(Double{});
    case RowType::kBFloat16: return visit(BFloat16{});
    case RowType::kHalf: return visit(Half{});
  }
}

template <class Visit>
void with_function(Activation activation, Visit visit) {
  switch (activation) {
    case Activation::kRelu: return visit(Relu{});
    case Activation::kGelu: return visit(Gelu{});
    case Activation::kGeluTanh: return visit(GeluTanh{});
    case Activation::kSilu: return visit(Silu{});
  }
}

template <class Visit>
void with_flag(bool flag, Visit visit) {
  return flag ? visit(Known<true>{}) : visit(Known<false>{});
}

// Calls `visit` with the Loop that the rows need.
template <class Visit>
void with_loop(const ActivationKind& kind, bool has_bias, Visit visit) {
  with_type(kind.type, [&](auto type) {
    with_function(kind.activation, [&](auto function) {
      with_flag(kind.is_gated, [&](auto gated) {
        with_flag(has_bias, [&](auto bias) {
          visit(Loop<decltype(type), decltype(function), decltype(gated)::value, decltype(bias)::value>{});
        });
      });
    });
  });
}

void forward(const ActivationKind& kind, const ActivationForward& rows, int64_t begin, int64_t end) {
  with_loop(kind, rows.bias != nullptr, [&](auto loop) { forward_rows<decltype(loop)>(kind.width, rows, begin, end); });
}

void backward(const ActivationKind& kind, const ActivationBackward& rows, int64_t begin, int64_t end) {
  with_loop(kind, rows.bias != nullptr,
            [&](auto loop) { backward_rows<decltype(loop)>(kind.width, rows, begin, end); });
}

}  // namespace

extern const ActivationLoops TRIARCH_LOOPS = {forward, backward};

}  // namespace triarch
