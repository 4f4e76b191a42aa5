// Chooses and launches the kernels of interval_softmax.cuh.
#include <algorithm>

#include "interval_softmax.cuh"

namespace triarch {
namespace {

constexpr int kThreadsInPasses = 1024;

int64_t num_rows(const CudaShape& shape) { return shape.batch * shape.heads * shape.num_queries; }

// Vectors that the widest row can span: one more where rows do not start on a 16-byte boundary.
template <class T>
int64_t vectors_per_row(const CudaShape& shape, const void* data) {
  const bool aligned = reinterpret_cast<uintptr_t>(data) % 16 == 0 && shape.num_keys * sizeof(T) % 16 == 0;
  const int64_t entries = shape.num_keys + (aligned ? 0 : Vector<T>::kSize - 1);
  return (entries + Vector<T>::kSize - 1) / Vector<T>::kSize;
}

template <int kThreads, int kVectors>
struct Arrangement {
  static constexpr int threads = kThreads;
  static constexpr int vectors = kVectors;
};

// Calls launch with the smallest arrangement that holds a row in registers, or with no vectors if none does: beyond 32
// KB registers would spill, while the row still fits into the L1 cache for the later passes.
template <class Launch>
void arrange(int64_t vectors, const Launch& launch) {
  if (vectors <= 32 * 1) return launch(Arrangement<32, 1>{});
  if (vectors <= 32 * 4) return launch(Arrangement<32, 4>{});
  if (vectors <= 128 * 4) return launch(Arrangement<128, 4>{});
  if (vectors <= 256 * 4) return launch(Arrangement<256, 4>{});
  if (vectors <= 512 * 4) return launch(Arrangement<512, 4>{});
  return launch(Arrangement<kThreadsInPasses, 0>{});
}

template <int kThreads>
dim3 blocks_for(int64_t rows) {
  return dim3(static_cast<unsigned>((rows + kRowsPerBlock<kThreads> - 1) / kRowsPerBlock<kThreads>));
}

template <class T>
void forward(const CudaShape& shape, const void* scores, void* probs, const float* bias, int64_t bias_stride,
             cudaStream_t stream) {
  const T* source = static_cast<const T*>(scores);
  T* target = static_cast<T*>(probs);
  arrange(vectors_per_row<T>(shape, scores), [&](auto arrangement) {
    constexpr int kThreads = decltype(arrangement)::threads, kVectors = decltype(arrangement)::vectors;
    const dim3 blocks = blocks_for<kThreads>(num_rows(shape)), threads(kThreads, kRowsPerBlock<kThreads>);
    if constexpr (kVectors > 0) {
      forward_in_registers<T, kThreads, kVectors>
          <<<blocks, threads, 0, stream>>>(shape, source, target, bias, bias_stride);
    } else {
      forward_in_passes<T, kThreads><<<blocks, threads, 0, stream>>>(shape, source, target, bias, bias_stride);
    }
  });
}

template <class T>
void backward(const CudaShape& shape, const void* grad_probs, const void* probs, void* grad_scores, float* row_means,
              cudaStream_t stream) {
  const T* grads = static_cast<const T*>(grad_probs);
  const T* own_probs = static_cast<const T*>(probs);
  T* target = static_cast<T*>(grad_scores);
  arrange(vectors_per_row<T>(shape, probs), [&](auto arrangement) {
    constexpr int kThreads = decltype(arrangement)::threads, kVectors = decltype(arrangement)::vectors;
    const dim3 blocks = blocks_for<kThreads>(num_rows(shape)), threads(kThreads, kRowsPerBlock<kThreads>);
    if constexpr (kVectors > 0) {
      backward_in_registers<T, kThreads, kVectors>
          <<<blocks, threads, 0, stream>>>(shape, grads, own_probs, target, row_means);
    } else {
      backward_in_passes<T, kThreads><<<blocks, threads, 0, stream>>>(shape, grads, own_probs, target, row_means);
    }
  });
}

int64_t distance_tiles(const CudaShape& shape) {
  return (shape.num_queries + shape.num_keys - 1 + kDistancesPerBlock - 1) / kDistancesPerBlock;
}

template <class T>
void bias_gradient_of(const CudaShape& shape, const void* grad_probs, const void* probs, const float* row_means,
                      float* partial, cudaStream_t stream) {
  const int64_t slices = cuda_bias_slices(shape);
  const int64_t rows_per_slice = (shape.batch * shape.num_queries + slices - 1) / slices;
  const dim3 blocks(static_cast<unsigned>(distance_tiles(shape)), static_cast<unsigned>(slices),
                    static_cast<unsigned>(shape.heads));
  bias_gradient<T><<<blocks, kDistancesPerBlock, 0, stream>>>(
      shape, static_cast<const T*>(grad_probs), static_cast<const T*>(probs), row_means, rows_per_slice, partial);
}

template <class Work>
cudaError_t for_type(CudaType type, const CudaShape& shape, const Work& work) {
  if (num_rows(shape) == 0 || shape.num_keys == 0) return cudaSuccess;
  switch (type) {
    case CudaType::kFloat: work(float{}); break;
    case CudaType::kBFloat16: work(__nv_bfloat16{}); break;
    case CudaType::kHalf: work(__half{}); break;
  }
  return cudaGetLastError();
}

}  // namespace

int64_t cuda_bias_slices(const CudaShape& shape) {
  constexpr int64_t kBlocksWanted = 2048;  // several for each multiprocessor of the largest GPUs
  constexpr int64_t kRowsAtLeast = 16;
  const int64_t rows = shape.batch * shape.num_queries;
  const int64_t blocks_per_slice = std::max<int64_t>(1, distance_tiles(shape) * shape.heads);
  const int64_t wanted = (kBlocksWanted + blocks_per_slice - 1) / blocks_per_slice;
  return std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, rows / kRowsAtLeast));
}

cudaError_t cuda_softmax_forward(CudaType type, const CudaShape& shape, const void* scores, void* probs,
                                 const float* bias, int64_t bias_stride, cudaStream_t stream) {
  return for_type(type, shape,
                  [&](auto scalar) { forward<decltype(scalar)>(shape, scores, probs, bias, bias_stride, stream); });
}

cudaError_t cuda_softmax_backward(CudaType type, const CudaShape& shape, const void* grad_probs, const void* probs,
                                  void* grad_scores, float* row_means, cudaStream_t stream) {
  return for_type(type, shape, [&](auto scalar) {
    backward<decltype(scalar)>(shape, grad_probs, probs, grad_scores, row_means, stream);
  });
}

cudaError_t cuda_softmax_bias_gradient(CudaType type, const CudaShape& shape, const void* grad_probs, const void* probs,
                                       const float* row_means, float* partial, cudaStream_t stream) {
  return for_type(type, shape, [&](auto scalar) {
    bias_gradient_of<decltype(scalar)>(shape, grad_probs, probs, row_means, partial, stream);
  });
}

}  // namespace triarch
