// Runs the CUDA kernels of the interval softmax on CPU, one thread of the operating system for each CUDA thread, so
// that their indexing, edges and reductions are tested on machines without a GPU. Built by a test with a C++ compiler.
#include <cuda_runtime_api.h>

#include <barrier>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

#undef __shared__
#define __shared__ static  // one block runs at a time
#undef __launch_bounds__
#define __launch_bounds__(...)

namespace host {
thread_local uint3 thread_index, block_index;
std::barrier<>* block_barrier = nullptr;
std::vector<std::barrier<>*> warp_barriers;
float exchanged[1024];
thread_local int lane_in_block;

float shuffle_xor(float value, int offset) {
  std::barrier<>& warp = *warp_barriers[lane_in_block / 32];
  exchanged[lane_in_block] = value;
  warp.arrive_and_wait();
  const float result = exchanged[lane_in_block ^ offset];
  warp.arrive_and_wait();
  return result;
}

template <class Kernel>
void launch(dim3 grid, dim3 block, const Kernel& kernel) {
  const int size = static_cast<int>(block.x * block.y);
  std::vector<std::thread> threads;
  std::barrier<> whole(size);
  block_barrier = &whole;
  warp_barriers.clear();
  for (int i = 0; i < size / 32; ++i) warp_barriers.push_back(new std::barrier<>(32));
  for (int lane = 0; lane < size; ++lane) {
    threads.emplace_back([&, lane] {
      lane_in_block = lane;
      thread_index = {lane % block.x, lane / block.x, 0};
      for (unsigned z = 0; z < grid.z; ++z) {
        for (unsigned y = 0; y < grid.y; ++y) {
          for (unsigned x = 0; x < grid.x; ++x) {
            block_index = {x, y, z};
            kernel();
            whole.arrive_and_wait();
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::barrier<>* barrier : warp_barriers) delete barrier;
}
}  // namespace host

#define threadIdx host::thread_index
#define blockIdx host::block_index
#define __syncthreads() host::block_barrier->arrive_and_wait()
#define __shfl_xor_sync(mask, value, offset) host::shuffle_xor(value, offset)
#define __expf expf
template <class A, class B>
constexpr auto min(A a, B b) {
  return a < b ? a : b;
}
template <class A, class B>
constexpr auto max(A a, B b) {
  return a > b ? a : b;
}

#include "interval_softmax.cuh"

namespace {

using triarch::CudaShape;
using triarch::kRowsPerBlock;

template <class T, int kThreads, int kVectors>
void forward(const CudaShape& shape, const void* scores, void* probs, const float* bias) {
  const int64_t rows = shape.batch * shape.heads * shape.num_queries, stride = shape.num_queries + shape.num_keys - 1;
  const dim3 grid((rows + kRowsPerBlock<kThreads> - 1) / kRowsPerBlock<kThreads>),
      block(kThreads, kRowsPerBlock<kThreads>);
  const T* source = static_cast<const T*>(scores);
  T* target = static_cast<T*>(probs);
  host::launch(grid, block, [&] {
    if constexpr (kVectors > 0) {
      triarch::forward_in_registers<T, kThreads, kVectors>(shape, source, target, bias, stride);
    } else {
      triarch::forward_in_passes<T, kThreads>(shape, source, target, bias, stride);
    }
  });
}

template <class T, int kThreads, int kVectors>
void backward(const CudaShape& shape, const void* grad, const void* probs, void* grad_scores, float* means) {
  const int64_t rows = shape.batch * shape.heads * shape.num_queries;
  const dim3 grid((rows + kRowsPerBlock<kThreads> - 1) / kRowsPerBlock<kThreads>),
      block(kThreads, kRowsPerBlock<kThreads>);
  host::launch(grid, block, [&] {
    if constexpr (kVectors > 0) {
      triarch::backward_in_registers<T, kThreads, kVectors>(
          shape, static_cast<const T*>(grad), static_cast<const T*>(probs), static_cast<T*>(grad_scores), means);
    } else {
      triarch::backward_in_passes<T, kThreads>(shape, static_cast<const T*>(grad), static_cast<const T*>(probs),
                                               static_cast<T*>(grad_scores), means);
    }
  });
}

template <class T, int kThreads, int kVectors>
void run(const CudaShape& shape, const void* scores, const float* bias, const void* grad, void* probs,
         void* grad_scores, float* means, float* partial, int64_t slices) {
  forward<T, kThreads, kVectors>(shape, scores, probs, bias);
  backward<T, kThreads, kVectors>(shape, grad, probs, nullptr, means);
  const int64_t rows_per_slice = (shape.batch * shape.num_queries + slices - 1) / slices;
  const int64_t distances = shape.num_queries + shape.num_keys - 1;
  const dim3 grid((distances + triarch::kDistancesPerBlock - 1) / triarch::kDistancesPerBlock, slices, shape.heads);
  host::launch(grid, dim3(triarch::kDistancesPerBlock), [&] {
    triarch::bias_gradient<T>(shape, static_cast<const T*>(grad), static_cast<const T*>(probs), means, rows_per_slice,
                              partial);
  });
  backward<T, kThreads, kVectors>(shape, grad, probs, grad_scores, nullptr);
}

template <class T>
void run_arrangement(int arrangement, auto... arguments) {
  if (arrangement == 0) run<T, 32, 1>(arguments...);
  if (arrangement == 1) run<T, 32, 4>(arguments...);
  if (arrangement == 2) run<T, 128, 4>(arguments...);
  if (arrangement == 3) run<T, 128, 0>(arguments...);
}

}  // namespace

// type: 0 float, 1 bfloat16, 2 half. arrangement: rows of a warp with 1 or 4 vectors a thread, of a block, in passes.
extern "C" void run_on_host(int type, int arrangement, const int64_t* sizes, const int32_t* intervals, float scale,
                            const void* scores, const float* bias, const void* grad, void* probs, void* grad_scores,
                            float* means, float* partial, int64_t slices) {
  const CudaShape shape{sizes[0], sizes[1], sizes[2], sizes[3], intervals, scale};
  const auto with = [&]<class T>(T) {
    run_arrangement<T>(arrangement, shape, scores, bias, grad, probs, grad_scores, means, partial, slices);
  };
  if (type == 0) with(float{});
  if (type == 1) with(__nv_bfloat16{});
  if (type == 2) with(__half{});
}
