// Rows of 16-byte vectors on CUDA: loads and stores that stay inside the row, and sums over the threads of a row.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace triarch {

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ T from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
  return value;
}
template <>
__device__ inline __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

template <class T>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(T);
  T values[kSize];
};

// A row of `size` entries. Entries are addressed from the last 16-byte boundary at or before the row, so that vector j
// covers the entries first(j) .. first(j) + kSize, which may stick out of the row at both ends.
template <class T>
class Row {
  using Entry = std::remove_const_t<T>;

 public:
  __device__ Row(T* data, int size)
      : data_(data), size_(size), shift_(static_cast<int>(reinterpret_cast<uintptr_t>(data) % 16 / sizeof(T))) {}

  __device__ int vector_of(int entry) const { return (entry + shift_) / kSize; }
  __device__ int first(int vector) const { return vector * kSize - shift_; }
  __device__ int num_vectors() const { return (size_ + shift_ + kSize - 1) / kSize; }

  // Entries outside [begin, end) are not read; they become `filler`.
  __device__ Vector<Entry> load(int vector, int begin, int end, Entry filler) const {
    const int start = first(vector);
    if (start >= begin && start + kSize <= end) return *reinterpret_cast<const Vector<Entry>*>(data_ + start);
    Vector<Entry> result;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      result.values[i] = start + i >= begin && start + i < end ? data_[start + i] : filler;
    }
    return result;
  }

  __device__ void store(int vector, const Vector<Entry>& source) const {
    const int start = first(vector);
    if (start >= 0 && start + kSize <= size_) {
      *reinterpret_cast<Vector<Entry>*>(data_ + start) = source;
      return;
    }
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      if (start + i >= 0 && start + i < size_) data_[start + i] = source.values[i];
    }
  }

 private:
  static constexpr int kSize = Vector<Entry>::kSize;
  T* data_;
  int size_;
  int shift_;
};

struct Sum {
  static constexpr float kNeutral = 0.0f;
  __device__ static float of(float a, float b) { return a + b; }
};

struct Maximum {  // of the entries that are numbers
  static constexpr float kNeutral = -INFINITY;
  __device__ static float of(float a, float b) { return fmaxf(a, b); }
};

// The reduction of `value` over the kThreads threads that share a row, given to all of them. A row of one warp needs
// no barrier; larger rows have a block each.
template <class Operation, int kThreads>
__device__ float reduce_row(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value = Operation::of(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  if constexpr (kThreads > 32) {
    constexpr int kWarps = kThreads / 32;
    __shared__ float of_warp[kWarps];
    __syncthreads();  // the previous reduction may still be read
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = threadIdx.x % 32 < kWarps ? of_warp[threadIdx.x % 32] : Operation::kNeutral;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      value = Operation::of(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
  }
  return value;
}

}  // namespace triarch
