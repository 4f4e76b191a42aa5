// Interval softmax on CUDA. Each row belongs to a warp or a block, which reads the keys that its query sees, once where
// the row fits into registers, and writes the whole row.
//
// The gradient of the distance bias is summed over diagonals by a kernel of its own, without atomics: its result does
// not depend on the order in which blocks run.
#pragma once

#include "interval_softmax_cuda.h"
#include "row_vectors.cuh"

namespace triarch {

struct VisibleKeys {
  int begin;
  int end;
};

__device__ inline VisibleKeys visible_keys(const CudaShape& shape, int64_t sample, int64_t query) {
  const int2 interval = reinterpret_cast<const int2*>(shape.intervals)[sample * shape.num_queries + query];
  const int begin = max(interval.x, 0);
  const int end = min(interval.y, static_cast<int>(shape.num_keys));
  return begin < end ? VisibleKeys{begin, end} : VisibleKeys{0, 0};
}

__device__ inline VisibleKeys visible_keys(const CudaShape& shape, int64_t row) {
  return visible_keys(shape, row / shape.num_queries / shape.heads, row % shape.num_queries);
}

template <class T>
__device__ float exponential(float x) {
  if constexpr (sizeof(T) == 4) return expf(x);
  return __expf(x);  // its error vanishes in the rounding to 16 bits
}

// The bias of key k is bias_of_row[k].
__device__ inline const float* bias_of_row(const CudaShape& shape, const float* bias, int64_t bias_stride,
                                           int64_t row) {
  if (bias == nullptr) return nullptr;
  return bias + row / shape.num_queries % shape.heads * bias_stride + shape.num_queries - 1 - row % shape.num_queries;
}

// scale * score + bias, and -inf where the query does not see the key.
template <class T>
__device__ float logit(const CudaShape& shape, T score, const float* bias, int key, VisibleKeys seen) {
  if (key < seen.begin || key >= seen.end) return -INFINITY;
  return to_float(score) * shape.scale + (bias == nullptr ? 0.0f : bias[key]);
}

template <class T>
__device__ Vector<T> load_zero_filled(const Row<const T>& row, int vector, VisibleKeys seen) {
  return row.load(vector, seen.begin, seen.end, from_float<T>(0.0f));
}

// Zeros in every vector of the row but first..end.
template <class T, int kThreads>
__device__ void zero_outside(const Row<T>& row, int thread, int first, int end) {
  const Vector<T> zeros{};
  for (int vector = thread; vector < first; vector += kThreads) row.store(vector, zeros);
  for (int vector = end + thread; vector < row.num_vectors(); vector += kThreads) row.store(vector, zeros);
}

// Rows of one warp share a block of four; longer rows have their own.
template <int kThreads>
constexpr int kRowsPerBlock = kThreads == 32 ? 4 : 1;

template <class T, int kThreads, int kVectors>
__global__ void __launch_bounds__(kThreads* kRowsPerBlock<kThreads>)
    forward_in_registers(CudaShape shape, const T* scores, T* probs, const float* bias, int64_t bias_stride) {
  constexpr int kSize = Vector<T>::kSize;
  const int64_t row_index = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock<kThreads> + threadIdx.y;
  if (row_index >= shape.batch * shape.heads * shape.num_queries) return;
  const int num_keys = static_cast<int>(shape.num_keys);
  const Row<const T> source(scores + row_index * num_keys, num_keys);
  const Row<T> target(probs + row_index * num_keys, num_keys);
  const VisibleKeys seen = visible_keys(shape, row_index);
  const float* own_bias = bias_of_row(shape, bias, bias_stride, row_index);
  const int thread = threadIdx.x;
  const int first_vector = source.vector_of(seen.begin);
  const int end_vector = seen.end > seen.begin ? source.vector_of(seen.end - 1) + 1 : first_vector;

  float logits[kVectors][kSize];
  float largest = -INFINITY;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int vector = first_vector + v * kThreads + thread;
    if (vector >= end_vector) break;
    const auto loaded = load_zero_filled(source, vector, seen);
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      logits[v][i] = logit(shape, loaded.values[i], own_bias, source.first(vector) + i, seen);
      largest = fmaxf(largest, logits[v][i]);
    }
  }
  largest = reduce_row<Maximum, kThreads>(largest);
  float sum = 0.0f;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int vector = first_vector + v * kThreads + thread;
    if (vector >= end_vector) break;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const int key = source.first(vector) + i;
      const bool visible = key >= seen.begin && key < seen.end;
      logits[v][i] = visible ? exponential<T>(logits[v][i] - largest) : 0.0f;
      sum += logits[v][i];
    }
  }
  const float share = 1.0f / reduce_row<Sum, kThreads>(sum);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int vector = first_vector + v * kThreads + thread;
    if (vector >= end_vector) break;
    Vector<T> result;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const int key = target.first(vector) + i;
      const bool visible = key >= seen.begin && key < seen.end;  // NaN must not leave the interval
      result.values[i] = from_float<T>(visible ? logits[v][i] * share : 0.0f);
    }
    target.store(vector, result);
  }
  zero_outside<T, kThreads>(target, thread, first_vector, end_vector);
}

// For rows that no block holds in registers: largest score, sum and result in a pass each, the later ones from cache.
template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads)
    forward_in_passes(CudaShape shape, const T* scores, T* probs, const float* bias, int64_t bias_stride) {
  constexpr int kSize = Vector<T>::kSize;
  const int64_t row_index = blockIdx.x;
  const int num_keys = static_cast<int>(shape.num_keys);
  const Row<const T> source(scores + row_index * num_keys, num_keys);
  const Row<T> target(probs + row_index * num_keys, num_keys);
  const VisibleKeys seen = visible_keys(shape, row_index);
  const float* own_bias = bias_of_row(shape, bias, bias_stride, row_index);
  const int thread = threadIdx.x;
  const int first_vector = source.vector_of(seen.begin);
  const int end_vector = seen.end > seen.begin ? source.vector_of(seen.end - 1) + 1 : first_vector;

  float largest = -INFINITY;
  for (int vector = first_vector + thread; vector < end_vector; vector += kThreads) {
    const auto loaded = load_zero_filled(source, vector, seen);
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      largest = fmaxf(largest, logit(shape, loaded.values[i], own_bias, source.first(vector) + i, seen));
    }
  }
  largest = reduce_row<Maximum, kThreads>(largest);
  float sum = 0.0f;
  for (int vector = first_vector + thread; vector < end_vector; vector += kThreads) {
    const auto loaded = load_zero_filled(source, vector, seen);
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const int key = source.first(vector) + i;
      const bool visible = key >= seen.begin && key < seen.end;
      sum += visible ? exponential<T>(logit(shape, loaded.values[i], own_bias, key, seen) - largest) : 0.0f;
    }
  }
  const float share = 1.0f / reduce_row<Sum, kThreads>(sum);
  for (int vector = first_vector + thread; vector < end_vector; vector += kThreads) {
    const auto loaded = load_zero_filled(source, vector, seen);
    Vector<T> result;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const int key = source.first(vector) + i;
      const bool visible = key >= seen.begin && key < seen.end;
      const float weight = exponential<T>(logit(shape, loaded.values[i], own_bias, key, seen) - largest);
      result.values[i] = from_float<T>(visible ? weight * share : 0.0f);
    }
    target.store(vector, result);
  }
  zero_outside<T, kThreads>(target, thread, first_vector, end_vector);
}

template <class T>
__device__ float product_sum(const Vector<T>& left, const Vector<T>& right) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) sum += to_float(left.values[i]) * to_float(right.values[i]);
  return sum;
}

// scale * p * (g - mean); entries outside the interval were loaded as zeros and stay zero unless the mean is not
// finite.
template <class T>
__device__ Vector<T> score_gradient(const Vector<T>& probs, const Vector<T>& grads, float mean, float scale, int first,
                                    VisibleKeys seen) {
  Vector<T> result;
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) {
    const bool visible = first + i >= seen.begin && first + i < seen.end;
    const float gradient = scale * (to_float(probs.values[i]) * (to_float(grads.values[i]) - mean));
    result.values[i] = from_float<T>(visible ? gradient : 0.0f);
  }
  return result;
}

template <class T, int kThreads, int kVectors>
__global__ void __launch_bounds__(kThreads* kRowsPerBlock<kThreads>)
    backward_in_registers(CudaShape shape, const T* grad_probs, const T* probs, T* grad_scores, float* row_means) {
  const int64_t row_index = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock<kThreads> + threadIdx.y;
  if (row_index >= shape.batch * shape.heads * shape.num_queries) return;
  const int num_keys = static_cast<int>(shape.num_keys);
  const Row<const T> prob_row(probs + row_index * num_keys, num_keys);
  const Row<const T> grad_row(grad_probs + row_index * num_keys, num_keys);
  const VisibleKeys seen = visible_keys(shape, row_index);
  const int thread = threadIdx.x;
  const int first_vector = prob_row.vector_of(seen.begin);
  const int end_vector = seen.end > seen.begin ? prob_row.vector_of(seen.end - 1) + 1 : first_vector;

  Vector<T> own_probs[kVectors], own_grads[kVectors];
  float mean = 0.0f;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int vector = first_vector + v * kThreads + thread;
    if (vector >= end_vector) break;
    own_probs[v] = load_zero_filled(prob_row, vector, seen);
    own_grads[v] = load_zero_filled(grad_row, vector, seen);
    mean += product_sum(own_probs[v], own_grads[v]);
  }
  mean = reduce_row<Sum, kThreads>(mean);
  if (row_means != nullptr && thread == 0) row_means[row_index] = mean;
  if (grad_scores == nullptr) return;
  const Row<T> target(grad_scores + row_index * num_keys, num_keys);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int vector = first_vector + v * kThreads + thread;
    if (vector >= end_vector) break;
    target.store(vector, score_gradient(own_probs[v], own_grads[v], mean, shape.scale, target.first(vector), seen));
  }
  zero_outside<T, kThreads>(target, thread, first_vector, end_vector);
}

template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads)
    backward_in_passes(CudaShape shape, const T* grad_probs, const T* probs, T* grad_scores, float* row_means) {
  const int64_t row_index = blockIdx.x;
  const int num_keys = static_cast<int>(shape.num_keys);
  const Row<const T> prob_row(probs + row_index * num_keys, num_keys);
  const Row<const T> grad_row(grad_probs + row_index * num_keys, num_keys);
  const VisibleKeys seen = visible_keys(shape, row_index);
  const int thread = threadIdx.x;
  const int first_vector = prob_row.vector_of(seen.begin);
  const int end_vector = seen.end > seen.begin ? prob_row.vector_of(seen.end - 1) + 1 : first_vector;

  float mean = 0.0f;
  for (int vector = first_vector + thread; vector < end_vector; vector += kThreads) {
    mean += product_sum(load_zero_filled(prob_row, vector, seen), load_zero_filled(grad_row, vector, seen));
  }
  mean = reduce_row<Sum, kThreads>(mean);
  if (row_means != nullptr && thread == 0) row_means[row_index] = mean;
  if (grad_scores == nullptr) return;
  const Row<T> target(grad_scores + row_index * num_keys, num_keys);
  for (int vector = first_vector + thread; vector < end_vector; vector += kThreads) {
    const auto own_probs = load_zero_filled(prob_row, vector, seen);
    const auto own_grads = load_zero_filled(grad_row, vector, seen);
    target.store(vector, score_gradient(own_probs, own_grads, mean, shape.scale, target.first(vector), seen));
  }
  zero_outside<T, kThreads>(target, thread, first_vector, end_vector);
}

constexpr int kDistancesPerBlock = 256;

// A thread sums one diagonal of one head over the rows (sample, query) of its slice.
template <class T>
__global__ void __launch_bounds__(kDistancesPerBlock)
    bias_gradient(CudaShape shape, const T* grad_probs, const T* probs, const float* row_means, int64_t rows_per_slice,
                  float* partial) {
  const int num_distances = static_cast<int>(shape.num_queries + shape.num_keys - 1);
  const int distance = blockIdx.x * kDistancesPerBlock + threadIdx.x;
  const int64_t head = blockIdx.z;
  const int64_t first = blockIdx.y * rows_per_slice;
  const int64_t end = min(first + rows_per_slice, shape.batch * shape.num_queries);
  float sum = 0.0f;
  for (int64_t sample_query = first; sample_query < end; ++sample_query) {
    const int64_t sample = sample_query / shape.num_queries, query = sample_query % shape.num_queries;
    const VisibleKeys seen = visible_keys(shape, sample, query);
    const int key = distance + static_cast<int>(query) - static_cast<int>(shape.num_queries - 1);
    if (key < seen.begin || key >= seen.end) continue;
    const int64_t row = (sample * shape.heads + head) * shape.num_queries + query;
    const int64_t entry = row * shape.num_keys + key;
    sum += to_float(probs[entry]) * (to_float(grad_probs[entry]) - row_means[row]);
  }
  if (distance < num_distances) {
    partial[(static_cast<int64_t>(blockIdx.y) * shape.heads + head) * num_distances + distance] = sum;
  }
}

}  // namespace triarch
