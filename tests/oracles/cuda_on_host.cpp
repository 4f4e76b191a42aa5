// Runs the CUDA kernels of the interval softmax on CPU, one fibre for each CUDA thread, so that their indexing, edges
// and reductions are tested on machines without a GPU. Built by a test with a C++ compiler.
#include <cuda_runtime_api.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#undef __shared__
#define __shared__ static  // one block runs at a time
#undef __launch_bounds__
#define __launch_bounds__(...)

namespace host {
constexpr size_t kStackBytes = 256 * 1024;

struct Fibre {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  uint3 thread_index{}, block_index{};
  int lane = 0;
};

Fibre* running = nullptr;
std::vector<Fibre*> ready;
size_t unfinished = 0;
ucontext_t launcher;
std::function<void()> work_of_a_fibre;
std::minstd_rand draws;

// In an order that is random and the same in every run, so that warps overtake one another and a missing barrier shows.
Fibre* take_ready() {
  std::swap(ready[draws() % ready.size()], ready.back());
  Fibre* fibre = ready.back();
  ready.pop_back();
  return fibre;
}

void run_another() {
  if (ready.empty()) {
    std::fputs("a barrier was not reached by all of its threads\n", stderr);
    std::abort();
  }
  Fibre* left = running;
  running = take_ready();
  if (running != left) swapcontext(&left->context, &running->context);
}

class Barrier {
 public:
  explicit Barrier(size_t size) : size_(size) {}
  void arrive_and_wait() {
    waiting_.push_back(running);
    if (waiting_.size() == size_) {
      ready.insert(ready.end(), waiting_.begin(), waiting_.end());
      waiting_.clear();
    }
    run_another();
  }

 private:
  size_t size_;
  std::vector<Fibre*> waiting_;
};

std::vector<Barrier> warp_barriers;
Barrier* block_barrier = nullptr;
float exchanged[1024];

float shuffle_xor(float value, int offset) {
  const int lane = running->lane;
  exchanged[lane] = value;
  warp_barriers[lane / 32].arrive_and_wait();
  const float result = exchanged[lane ^ offset];
  warp_barriers[lane / 32].arrive_and_wait();
  return result;
}

void start_of_a_fibre() {
  work_of_a_fibre();
  if (--unfinished == 0) setcontext(&launcher);
  run_another();
}

template <class Kernel>
void launch(dim3 grid, dim3 block, const Kernel& kernel) {
  const size_t size = block.x * block.y;
  Barrier whole(size);
  block_barrier = &whole;
  warp_barriers.assign(size / 32, Barrier(32));
  work_of_a_fibre = [&] {
    for (unsigned z = 0; z < grid.z; ++z) {
      for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) {
          running->block_index = {x, y, z};
          kernel();
          whole.arrive_and_wait();
        }
      }
    }
  };
  std::vector<Fibre> fibres(size);
  for (size_t lane = 0; lane < size; ++lane) {
    Fibre& fibre = fibres[lane];
    fibre.lane = static_cast<int>(lane);
    fibre.thread_index = {static_cast<unsigned>(lane % block.x), static_cast<unsigned>(lane / block.x), 0};
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.data();
    fibre.context.uc_stack.ss_size = fibre.stack.size();
    makecontext(&fibre.context, start_of_a_fibre, 0);
    ready.push_back(&fibre);
  }
  unfinished = size;
  running = take_ready();
  swapcontext(&launcher, &running->context);
}
}  // namespace host

#define threadIdx host::running->thread_index
#define blockIdx host::running->block_index
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
