// The vector loops of RMSNorm on CPU, compiled once for each instruction set (TRIARCH_LOOPS names it).
//
// A row stays in the first-level cache between the loops over it. No inline function of the standard library may be
// called here; ../attention/softmax_rows.cpp says why.
#include "rms_norm_rows.h"

#include "../attention/row_scalars.h"

namespace triarch {
namespace {

inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }

template <class T>
void forward_rows(const RmsNormKind& kind, const RmsNormForward& rows, int64_t begin, int64_t end) {
  using Storage = typename T::Storage;
  using Compute = typename T::Compute;
  const Storage* const weight = static_cast<const Storage*>(rows.weight);
  for (int64_t row = begin; row < end; ++row) {
    const Storage* const input = static_cast<const Storage*>(rows.input) + row * kind.width;
    Storage* const output = static_cast<Storage*>(rows.output) + row * kind.width;
    Compute squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < kind.width; ++i) squares += T::load(input[i]) * T::load(input[i]);
    const Compute mean = squares / static_cast<Compute>(kind.width);
    const Compute inverse = 1 / square_root(mean + static_cast<Compute>(kind.eps));
    static_cast<Compute*>(rows.inverses)[row] = inverse;
#pragma omp simd
    for (int64_t i = 0; i < kind.width; ++i) output[i] = T::store(T::load(input[i]) * inverse * T::load(weight[i]));
  }
}

// With n = input / root, the gradient is (g w - n mean(g w n)) / root, and that of the weight the sum of g n.
template <class T>
void backward_rows(const RmsNormKind& kind, const RmsNormBackward& rows, int64_t begin, int64_t end) {
  using Storage = typename T::Storage;
  using Compute = typename T::Compute;
  const Storage* const weight = static_cast<const Storage*>(rows.weight);
  Compute* const grad_weight = static_cast<Compute*>(rows.grad_weight);
  for (int64_t row = begin; row < end; ++row) {
    const Storage* const grad_output = static_cast<const Storage*>(rows.grad_output) + row * kind.width;
    const Storage* const input = static_cast<const Storage*>(rows.input) + row * kind.width;
    Storage* const grad_input = static_cast<Storage*>(rows.grad_input) + row * kind.width;
    const Compute inverse = static_cast<const Compute*>(rows.inverses)[row];
    Compute along = 0;
#pragma omp simd reduction(+ : along)
    for (int64_t i = 0; i < kind.width; ++i) {
      const Compute term = T::load(grad_output[i]) * (T::load(input[i]) * inverse);
      grad_weight[i] += term;
      along += term * T::load(weight[i]);
    }
    const Compute mean = along / static_cast<Compute>(kind.width);
#pragma omp simd
    for (int64_t i = 0; i < kind.width; ++i) {
      const Compute grad = T::load(grad_output[i]) * T::load(weight[i]);
      grad_input[i] = T::store(inverse * (grad - T::load(input[i]) * inverse * mean));
    }
  }
}

void forward(const RmsNormKind& kind, const RmsNormForward& rows, int64_t begin, int64_t end) {
  switch (kind.type) {
    case RowType::kFloat: return forward_rows<Float>(kind, rows, begin, end);
    case RowType::kDouble: return forward_rows<Double>(kind, rows, begin, end);
    case RowType::kBFloat16: return forward_rows<BFloat16>(kind, rows, begin, end);
    case RowType::kHalf: return forward_rows<Half>(kind, rows, begin, end);
  }
}

void backward(const RmsNormKind& kind, const RmsNormBackward& rows, int64_t begin, int64_t end) {
  switch (kind.type) {
    case RowType::kFloat: return backward_rows<Float>(kind, rows, begin, end);
    case RowType::kDouble: return backward_rows<Double>(kind, rows, begin, end);
    case RowType::kBFloat16: return backward_rows<BFloat16>(kind, rows, begin, end);
    case RowType::kHalf: return backward_rows<Half>(kind, rows, begin, end);
  }
}

}  // namespace

extern const RmsNormLoops TRIARCH_LOOPS = {forward, backward};

}  // namespace triarch
