// The vector loops of the interval softmax on CPU, compiled once for each instruction set (TRIARCH_LOOPS names it).
//
// A row is read and written only where its query sees keys; the rest is filled with zeros without being read.
// No inline function of the standard library may be called here: the linker keeps one copy of each for the whole
// program, and it could be the one of an instruction set that the machine lacks.
#include "softmax_rows.h"

#include <cstdlib>
#include <cstring>

#include "row_scalars.h"

namespace triarch {
namespace {

template <class A, class B>
struct SameType {
  static constexpr bool value = false;
};
template <class A>
struct SameType<A, A> {
  static constexpr bool value = true;
};

// Row buffer in the arithmetic type, for storage types that would round between the passes.
template <class Compute>
class Scratch {
 public:
  explicit Scratch(int64_t size) : data_(static_cast<Compute*>(std::malloc(sizeof(Compute) * (size + 1)))) {
    if (data_ == nullptr) std::abort();
  }
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }
  Compute* get() const { return data_; }

 private:
  Compute* data_;
};

struct Visible {
  int64_t begin;
  int64_t end;
};

Visible visible_keys(const RowShape& shape, int64_t row) {
  const int64_t query = row % shape.num_queries;
  const int64_t sample = row / shape.num_queries / shape.heads;
  const int32_t* interval = shape.intervals + 2 * (sample * shape.num_queries + query);
  const int64_t begin = interval[0] < 0 ? 0 : interval[0];
  const int64_t end = interval[1] > shape.num_keys ? shape.num_keys : interval[1];
  return begin < end ? Visible{begin, end} : Visible{0, 0};
}

template <class T>
void zero_outside(typename T::Storage* row, Visible seen, int64_t num_keys) {
  std::memset(row, 0, sizeof(typename T::Storage) * seen.begin);
  std::memset(row + seen.end, 0, sizeof(typename T::Storage) * (num_keys - seen.end));
}

// Writes exp(score - largest score) of the keys begin..end to `work`; returns the sum.
template <class T>
typename T::Compute exponentials(const typename T::Storage* scores, const float* bias, typename T::Compute scale,
                                 Visible seen, typename T::Compute* work) {
  using Compute = typename T::Compute;
  // The maximum skips NaN; the sum does not, so a NaN among the visible scores makes the whole row NaN.
  Compute largest = -static_cast<Compute>(__builtin_inf());
  Compute sum = 0;
  if (bias == nullptr) {
#pragma omp simd reduction(max : largest)
    for (int64_t k = seen.begin; k < seen.end; ++k) {
      const Compute score = T::load(scores[k]) * scale;
      largest = score > largest ? score : largest;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t k = seen.begin; k < seen.end; ++k) {
      work[k] = exp_nonpositive(T::load(scores[k]) * scale - largest);
      sum += work[k];
    }
    return sum;
  }
#pragma omp simd reduction(max : largest)
  for (int64_t k = seen.begin; k < seen.end; ++k) {
    const Compute score = T::load(scores[k]) * scale + bias[k];
    work[k] = score;
    largest = score > largest ? score : largest;
  }
#pragma omp simd reduction(+ : sum)
  for (int64_t k = seen.begin; k < seen.end; ++k) {
    work[k] = exp_nonpositive(work[k] - largest);
    sum += work[k];
  }
  return sum;
}

template <class T>
void forward_rows(const ForwardRows& rows, int64_t begin, int64_t end) {
  using Storage = typename T::Storage;
  using Compute = typename T::Compute;
  const RowShape& shape = rows.shape;
  constexpr bool kInPlace = SameType<Storage, Compute>::value;
  const Scratch<Compute> scratch(kInPlace ? 0 : shape.num_keys);
  for (int64_t row = begin; row < end; ++row) {
    const Storage* scores = static_cast<const Storage*>(rows.scores) + row * shape.num_keys;
    Storage* probs = static_cast<Storage*>(rows.probs) + row * shape.num_keys;
    const int64_t query = row % shape.num_queries;
    const int64_t head = row / shape.num_queries % shape.heads;
    const float* bias = rows.bias ? rows.bias + head * rows.bias_stride + shape.num_queries - 1 - query : nullptr;
    const Visible seen = visible_keys(shape, row);
    Compute* work = scratch.get();
    if constexpr (kInPlace) work = probs;
    const Compute sum = exponentials<T>(scores, bias, static_cast<Compute>(shape.scale), seen, work);
    const Compute share = 1 / sum;
#pragma omp simd
    for (int64_t k = seen.begin; k < seen.end; ++k) {
      const Compute quotient = work[k] * share;
      // As exact as work / sum, at the price of two multiplications: the rest of the division is divided once more.
      probs[k] = T::store(quotient + (work[k] - quotient * sum) * share);
    }
    zero_outside<T>(probs, seen, shape.num_keys);
  }
}

template <class T>
void backward_rows(const BackwardRows& rows, int64_t begin, int64_t end) {
  using Storage = typename T::Storage;
  using Compute = typename T::Compute;
  const RowShape& shape = rows.shape;
  const Compute scale = static_cast<Compute>(shape.scale);
  for (int64_t row = begin; row < end; ++row) {
    const Storage* grad_probs = static_cast<const Storage*>(rows.grad_probs) + row * shape.num_keys;
    const Storage* probs = static_cast<const Storage*>(rows.probs) + row * shape.num_keys;
    Storage* grad_scores = static_cast<Storage*>(rows.grad_scores) + row * shape.num_keys;
    const Visible seen = visible_keys(shape, row);
    Compute mean = 0;  // of the incoming gradient, weighted by the probabilities
#pragma omp simd reduction(+ : mean)
    for (int64_t k = seen.begin; k < seen.end; ++k) mean += T::load(probs[k]) * T::load(grad_probs[k]);
    if (rows.grad_bias != nullptr) {
      Compute* grad_bias = static_cast<Compute*>(rows.grad_bias) + (end - 1 - row);
#pragma omp simd
      for (int64_t k = seen.begin; k < seen.end; ++k) {
        grad_bias[k] += T::load(probs[k]) * (T::load(grad_probs[k]) - mean);
      }
    }
#pragma omp simd
    for (int64_t k = seen.begin; k < seen.end; ++k) {
      grad_scores[k] = T::store(scale * (T::load(probs[k]) * (T::load(grad_probs[k]) - mean)));
    }
    zero_outside<T>(grad_scores, seen, shape.num_keys);
  }
}

void forward(RowType type, const ForwardRows& rows, int64_t begin, int64_t end) {
  switch (type) {
    case RowType::kFloat: return forward_rows<Float>(rows, begin, end);
    case RowType::kDouble: return forward_rows<Double>(rows, begin, end);
    case RowType::kBFloat16: return forward_rows<BFloat16>(rows, begin, end);
    case RowType::kHalf: return forward_rows<Half>(rows, begin, end);
  }
}

void backward(RowType type, const BackwardRows& rows, int64_t begin, int64_t end) {
  switch (type) {
    case RowType::kFloat: return backward_rows<Float>(rows, begin, end);
    case RowType::kDouble: return backward_rows<Double>(rows, begin, end);
    case RowType::kBFloat16: return backward_rows<BFloat16>(rows, begin, end);
    case RowType::kHalf: return backward_rows<Half>(rows, begin, end);
  }
}

}  // namespace

#if defined(__AVX512F__)
constexpr const char* kInstructionSet = "AVX-512";
#elif defined(__AVX2__)
constexpr const char* kInstructionSet = "AVX2";
#else
constexpr const char* kInstructionSet = "the baseline instruction set";
#endif

extern const RowLoops TRIARCH_LOOPS = {kInstructionSet, forward, backward};

}  // namespace triarch
