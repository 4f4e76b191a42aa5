// The vector loops of attention over key intervals on CPU, compiled once for each instruction set (TRIARCH_LOOPS
// names it).
//
// Neither scores nor probabilities are ever written to memory that outlives a tile: the forward pass keeps a running
// maximum and sum for each query, and the backward pass computes the tile again from the logarithm of the sum.
// Sources: Milakov and Gimelshein 2018 (running softmax); Dao et al. 2022, algorithms 1 and 4 (tiles, backward pass).
// No inline function of the standard library may be called here; softmax_rows.cpp says why.
#include "attention_tiles.h"

#include <cstring>

#include "row_scalars.h"
#include "tile_products.h"

namespace triarch {
namespace {

constexpr float kInfinity = __builtin_inff();
constexpr int64_t kQueries = 96;  // of a tile; whole register tiles
constexpr int64_t kKeys = 256;    // of a tile; with kQueries it keeps two tiles of scores in the second-level cache
// Off a power of two, so that the rows of a tile do not compete for the same cache lines.
constexpr int64_t kScoreStride = kKeys + kLanes;

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t whole_panels(int64_t keys) { return (keys + kTileColumns - 1) / kTileColumns * kTileColumns; }

// Hands out the scratch piece by piece.
class Pieces {
 public:
  explicit Pieces(float* scratch) : next_(scratch) {}
  float* take(int64_t size) {
    float* const piece = next_;
    next_ += size;
    return piece;
  }

 private:
  float* next_;
};

template <class T>
const typename T::Storage* rows_of(const Strided<const void>& tensor, int64_t sample, int64_t head) {
  return static_cast<const typename T::Storage*>(tensor.data) + sample * tensor.sample_stride +
         head * tensor.head_stride;
}

template <class T>
typename T::Storage* rows_of(const Strided<void>& tensor, int64_t sample, int64_t head) {
  return static_cast<typename T::Storage*>(tensor.data) + sample * tensor.sample_stride + head * tensor.head_stride;
}

// rows [n, width] -> target [n, padded], times `factor`, zeros behind the width.
template <class T>
void copy_rows(const typename T::Storage* rows, int64_t row_stride, int64_t num_rows, int64_t width, int64_t padded,
               float factor, float* target) {
  for (int64_t row = 0; row < num_rows; ++row) {
    const typename T::Storage* const from = rows + row * row_stride;
    float* const to = target + row * padded;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) to[i] = T::load(from[i]) * factor;
    for (int64_t i = width; i < padded; ++i) to[i] = 0.0f;
  }
}

// rows [n, width] -> panels [ceil(n / kTileColumns), width, kTileColumns], zeros behind the last row.
template <class T>
void copy_panels(const typename T::Storage* rows, int64_t row_stride, int64_t num_rows, int64_t width, float* panels) {
  for (int64_t first = 0; first < num_rows; first += kTileColumns) {
    float* const panel = panels + first * width;
    const int64_t own = smaller(kTileColumns, num_rows - first);
    if (own < kTileColumns) std::memset(panel, 0, sizeof(float) * kTileColumns * width);
    for (int64_t row = 0; row < own; ++row) {
      const typename T::Storage* const from = rows + (first + row) * row_stride;
      for (int64_t i = 0; i < width; ++i) panel[i * kTileColumns + row] = T::load(from[i]);
    }
  }
}

template <class T>
void store_rows(const float* rows, int64_t padded, int64_t num_rows, int64_t width, float factor,
                typename T::Storage* target, int64_t target_stride) {
  for (int64_t row = 0; row < num_rows; ++row) {
    const float* const from = rows + row * padded;
    typename T::Storage* const to = target + row * target_stride;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) to[i] = T::store(from[i] * factor);
  }
}

struct Range {
  int64_t begin;
  int64_t end;
};

Range clipped(Range range, Range bounds) {
  const Range both{larger(range.begin, bounds.begin), smaller(range.end, bounds.end)};
  return both.begin < both.end ? both : Range{bounds.begin, bounds.begin};
}

// Some queries of one sample and the keys that each of them sees.
struct QueryTile {
  QueryTile(const AttentionShape& shape, int64_t sample, int64_t first)
      : first(first), size(smaller(kQueries, shape.num_queries - first)), keys{shape.num_keys, 0} {
    const int32_t* intervals = shape.intervals + 2 * (sample * shape.num_queries + first);
    for (int64_t row = 0; row < size; ++row) {
      seen[row] = clipped({intervals[2 * row], intervals[2 * row + 1]}, {0, shape.num_keys});
      if (seen[row].begin == seen[row].end) continue;
      keys = {smaller(keys.begin, seen[row].begin), larger(keys.end, seen[row].end)};
    }
    keys.begin = keys.begin / kTileColumns * kTileColumns;  // panels are read from their first key
  }

  int64_t first, size;
  Range keys;  // empty if no query sees any
  Range seen[kQueries];
};

// The bias of the scores of one query, to be indexed by key; null without bias.
const float* bias_of(const AttentionShape& shape, int64_t head, int64_t query) {
  return shape.bias ? shape.bias + head * shape.bias_stride + shape.num_queries - 1 - query : nullptr;
}

void zero_outside(float* row, Range seen, Range keys) {
  std::memset(row, 0, sizeof(float) * (seen.begin - keys.begin));
  std::memset(row + (seen.end - keys.begin), 0,
              sizeof(float) * (whole_vectors(keys.end - keys.begin) - (seen.end - keys.begin)));
}

// What a query has seen so far.
struct Running {
  float largest;
  float sum;
};

// scores[0, n) become exp(score - largest so far); returns by what everything summed before must be multiplied.
float absorb(float* scores, const float* bias, int64_t n, Running& running) {
  // The maximum skips NaN; the sum does not, so a NaN among the visible scores makes the whole row NaN.
  float largest = running.largest;
  if (bias == nullptr) {
#pragma omp simd reduction(max : largest)
    for (int64_t k = 0; k < n; ++k) largest = scores[k] > largest ? scores[k] : largest;
  } else {
#pragma omp simd reduction(max : largest)
    for (int64_t k = 0; k < n; ++k) {
      scores[k] += bias[k];
      largest = scores[k] > largest ? scores[k] : largest;
    }
  }
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t k = 0; k < n; ++k) {
    scores[k] = exp_nonpositive(scores[k] - largest);
    sum += scores[k];
  }
  const float factor = running.largest == -kInfinity ? 0.0f : exp_nonpositive(running.largest - largest);
  running = {largest, running.sum * factor + sum};
  return factor;
}

template <class T>
void forward_tile(const AttentionForward& call, int64_t sample, int64_t head, const QueryTile& tile,
                  const float* key_panels, const float* values, Pieces pieces) {
  const AttentionShape& shape = call.shape;
  const int64_t padded = whole_vectors(shape.width);
  float* const queries = pieces.take(kQueries * shape.width);
  float* const context = pieces.take(kQueries * padded);
  float* const scores = pieces.take(kQueries * kScoreStride);
  Running running[kQueries];
  for (int64_t row = 0; row < tile.size; ++row) running[row] = {-kInfinity, 0.0f};
  std::memset(context, 0, sizeof(float) * tile.size * padded);
  copy_rows<T>(rows_of<T>(call.query, sample, head) + tile.first * call.query.row_stride, call.query.row_stride,
               tile.size, shape.width, shape.width, shape.scale, queries);

  for (int64_t first = tile.keys.begin; first < tile.keys.end; first += kKeys) {
    const Range keys{first, smaller(first + kKeys, tile.keys.end)};
    multiply_panels({queries, shape.width, 1}, tile.size, key_panels + first * shape.width,
                    whole_vectors(keys.end - keys.begin), scores, kScoreStride, shape.width);
    for (int64_t row = 0; row < tile.size; ++row) {
      float* const own = scores + row * kScoreStride;
      const Range seen = clipped(tile.seen[row], keys);
      zero_outside(own, seen, keys);
      if (seen.begin == seen.end) continue;
      const float* const bias = bias_of(shape, head, tile.first + row);
      const float factor =
          absorb(own + (seen.begin - first), bias ? bias + seen.begin : nullptr, seen.end - seen.begin, running[row]);
      if (factor == 1.0f) continue;
#pragma omp simd
      for (int64_t i = 0; i < padded; ++i) context[row * padded + i] *= factor;
    }
    multiply({scores, kScoreStride, 1}, tile.size, values + first * padded, padded, padded, context, padded,
             keys.end - keys.begin, true);
  }

  typename T::Storage* const target = rows_of<T>(call.context, sample, head) + tile.first * call.context.row_stride;
  float* const log_sums = call.log_sums + (sample * shape.heads + head) * shape.num_queries + tile.first;
  for (int64_t row = 0; row < tile.size; ++row) {
    const bool sees_none = tile.seen[row].begin == tile.seen[row].end;
    log_sums[row] = sees_none ? -kInfinity : running[row].largest + __builtin_logf(running[row].sum);
    store_rows<T>(context + row * padded, padded, 1, shape.width, sees_none ? 0.0f : 1.0f / running[row].sum,
                  target + row * call.context.row_stride, call.context.row_stride);
  }
}

template <class T>
void forward_group(const AttentionForward& call, int64_t sample, int64_t group, float* scratch) {
  const AttentionShape& shape = call.shape;
  const int64_t padded = whole_vectors(shape.width), heads_per_group = shape.heads / shape.groups;
  Pieces pieces(scratch);
  float* const key_panels = pieces.take(whole_panels(shape.num_keys) * shape.width);
  float* const values = pieces.take(shape.num_keys * padded);
  copy_panels<T>(rows_of<T>(call.key, sample, group), call.key.row_stride, shape.num_keys, shape.width, key_panels);
  copy_rows<T>(rows_of<T>(call.value, sample, group), call.value.row_stride, shape.num_keys, shape.width, padded, 1.0f,
               values);
  for (int64_t first = 0; first < shape.num_queries; first += kQueries) {
    const QueryTile tile(shape, sample, first);
    for (int64_t head = group * heads_per_group; head < (group + 1) * heads_per_group; ++head) {
      forward_tile<T>(call, sample, head, tile, key_panels, values, pieces);
    }
  }
}

// scores[0, n) become probabilities and grad_probs[0, n) the gradients of the scores that came in.
void differentiate(float* scores, float* grad_probs, const float* bias, int64_t n, float log_sum, float mean_gradient,
                   float* grad_bias) {
  if (bias == nullptr) {
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) {
      scores[k] = exp_nonpositive(scores[k] - log_sum);
      grad_probs[k] = scores[k] * (grad_probs[k] - mean_gradient);
    }
  } else {
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) {
      scores[k] = exp_nonpositive(scores[k] + bias[k] - log_sum);
      grad_probs[k] = scores[k] * (grad_probs[k] - mean_gradient);
    }
  }
  if (grad_bias == nullptr) return;
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) grad_bias[k] += grad_probs[k];
}

// What the tiles of one group share in the backward pass.
struct GroupGradients {
  const float* key_panels;
  const float* value_panels;
  const float* keys;
  float* grad_keys;
  float* grad_values;
};

template <class T>
void backward_tile(const AttentionBackward& call, int64_t sample, int64_t head, const QueryTile& tile,
                   const GroupGradients& group, Pieces pieces) {
  const AttentionShape& shape = call.shape;
  const int64_t padded = whole_vectors(shape.width);
  float* const queries = pieces.take(kQueries * padded);
  float* const grad_context = pieces.take(kQueries * padded);
  float* const grad_queries = pieces.take(kQueries * padded);
  float* const scores = pieces.take(kQueries * kScoreStride);
  float* const grad_scores = pieces.take(kQueries * kScoreStride);
  float mean_gradients[kQueries];
  const auto context = rows_of<T>(call.context, sample, head) + tile.first * call.context.row_stride;
  copy_rows<T>(rows_of<T>(call.query, sample, head) + tile.first * call.query.row_stride, call.query.row_stride,
               tile.size, shape.width, padded, shape.scale, queries);
  copy_rows<T>(rows_of<T>(call.grad_context, sample, head) + tile.first * call.grad_context.row_stride,
               call.grad_context.row_stride, tile.size, shape.width, padded, 1.0f, grad_context);
  std::memset(grad_queries, 0, sizeof(float) * tile.size * padded);
  for (int64_t row = 0; row < tile.size; ++row) {
    float mean = 0.0f;  // the gradient of the probabilities, weighted by them, is that of the context times the context
#pragma omp simd reduction(+ : mean)
    for (int64_t i = 0; i < shape.width; ++i) {
      mean += grad_context[row * padded + i] * T::load(context[row * call.context.row_stride + i]);
    }
    mean_gradients[row] = mean;
  }

  const float* const log_sums = call.log_sums + (sample * shape.heads + head) * shape.num_queries + tile.first;
  const int64_t num_distances = shape.num_queries + shape.num_keys - 1;
  float* const grad_bias =
      call.grad_bias ? call.grad_bias + (sample * shape.heads + head) * num_distances + shape.num_queries - 1 : nullptr;
  for (int64_t first = tile.keys.begin; first < tile.keys.end; first += kKeys) {
    const Range keys{first, smaller(first + kKeys, tile.keys.end)};
    const int64_t num_keys = keys.end - keys.begin, columns = whole_vectors(num_keys);
    multiply_panels({queries, padded, 1}, tile.size, group.key_panels + first * shape.width, columns, scores,
                    kScoreStride, shape.width);
    multiply_panels({grad_context, padded, 1}, tile.size, group.value_panels + first * shape.width, columns,
                    grad_scores, kScoreStride, shape.width);
    for (int64_t row = 0; row < tile.size; ++row) {
      float* const own = scores + row * kScoreStride;
      float* const own_grad = grad_scores + row * kScoreStride;
      const Range seen = clipped(tile.seen[row], keys);
      const float* const bias = bias_of(shape, head, tile.first + row);
      zero_outside(own, seen, keys);
      zero_outside(own_grad, seen, keys);
      differentiate(own + (seen.begin - first), own_grad + (seen.begin - first), bias ? bias + seen.begin : nullptr,
                    seen.end - seen.begin, log_sums[row], mean_gradients[row],
                    grad_bias ? grad_bias - (tile.first + row) + seen.begin : nullptr);
    }
    multiply({scores, 1, kScoreStride}, num_keys, grad_context, padded, padded, group.grad_values + first * padded,
             padded, tile.size, true);
    multiply({grad_scores, 1, kScoreStride}, num_keys, queries, padded, padded, group.grad_keys + first * padded,
             padded, tile.size, true);
    multiply({grad_scores, kScoreStride, 1}, tile.size, group.keys + first * padded, padded, padded, grad_queries,
             padded, num_keys, true);
  }
  store_rows<T>(grad_queries, padded, tile.size, shape.width, shape.scale,
                rows_of<T>(call.grad_query, sample, head) + tile.first * call.grad_query.row_stride,
                call.grad_query.row_stride);
}

template <class T>
void backward_group(const AttentionBackward& call, int64_t sample, int64_t group, float* scratch) {
  const AttentionShape& shape = call.shape;
  const int64_t padded = whole_vectors(shape.width), heads_per_group = shape.heads / shape.groups;
  const int64_t num_keys = shape.num_keys;
  Pieces pieces(scratch);
  float* const key_panels = pieces.take(whole_panels(num_keys) * shape.width);
  float* const value_panels = pieces.take(whole_panels(num_keys) * shape.width);
  float* const keys = pieces.take(num_keys * padded);
  float* const grad_keys = pieces.take(num_keys * padded);
  float* const grad_values = pieces.take(num_keys * padded);
  const auto key = rows_of<T>(call.key, sample, group), value = rows_of<T>(call.value, sample, group);
  copy_panels<T>(key, call.key.row_stride, num_keys, shape.width, key_panels);
  copy_panels<T>(value, call.value.row_stride, num_keys, shape.width, value_panels);
  copy_rows<T>(key, call.key.row_stride, num_keys, shape.width, padded, 1.0f, keys);
  std::memset(grad_keys, 0, sizeof(float) * num_keys * padded);
  std::memset(grad_values, 0, sizeof(float) * num_keys * padded);
  if (call.grad_bias != nullptr) {
    const int64_t num_distances = shape.num_queries + num_keys - 1;
    std::memset(call.grad_bias + (sample * shape.heads + group * heads_per_group) * num_distances, 0,
                sizeof(float) * heads_per_group * num_distances);
  }
  for (int64_t first = 0; first < shape.num_queries; first += kQueries) {
    const QueryTile tile(shape, sample, first);
    for (int64_t head = group * heads_per_group; head < (group + 1) * heads_per_group; ++head) {
      backward_tile<T>(call, sample, head, tile, {key_panels, value_panels, keys, grad_keys, grad_values}, pieces);
    }
  }
  store_rows<T>(grad_keys, padded, num_keys, shape.width, 1.0f, rows_of<T>(call.grad_key, sample, group),
                call.grad_key.row_stride);
  store_rows<T>(grad_values, padded, num_keys, shape.width, 1.0f, rows_of<T>(call.grad_value, sample, group),
                call.grad_value.row_stride);
}

int64_t forward_scratch(const AttentionShape& shape) {
  const int64_t padded = whole_vectors(shape.width);
  return whole_panels(shape.num_keys) * shape.width + shape.num_keys * padded +
         kQueries * (shape.width + padded + kScoreStride);
}

int64_t backward_scratch(const AttentionShape& shape) {
  const int64_t padded = whole_vectors(shape.width);
  return 2 * whole_panels(shape.num_keys) * shape.width + 3 * shape.num_keys * padded +
         kQueries * (3 * padded + 2 * kScoreStride);
}

void forward(const AttentionForward& call, int64_t sample, int64_t group, float* scratch) {
  switch (call.shape.type) {
    case RowType::kFloat: return forward_group<Float>(call, sample, group, scratch);
    case RowType::kBFloat16: return forward_group<BFloat16>(call, sample, group, scratch);
    case RowType::kHalf: return forward_group<Half>(call, sample, group, scratch);
    case RowType::kDouble: return;
  }
}

void backward(const AttentionBackward& call, int64_t sample, int64_t group, float* scratch) {
  switch (call.shape.type) {
    case RowType::kFloat: return backward_group<Float>(call, sample, group, scratch);
    case RowType::kBFloat16: return backward_group<BFloat16>(call, sample, group, scratch);
    case RowType::kHalf: return backward_group<Half>(call, sample, group, scratch);
    case RowType::kDouble: return;
  }
}

}  // namespace

extern const AttentionLoops TRIARCH_LOOPS = {forward_scratch, backward_scratch, forward, backward};

}  // namespace triarch
