// Products of small float matrices, one register tile at a time, compiled once for each instruction set.
//
// Plain C++ with the compilers' vector types, so that the same source runs on AVX-512, AVX2, SSE and NEON.
#pragma once

#include <cstdint>

namespace triarch {
namespace {  // each instruction set gets its own copy: an inline function shared by name would mix them up

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kTileVectors = 4;  // 6 x 4 sums, 4 columns and a broadcast fill 29 of 32 registers
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kTileVectors = 2;  // 6 x 2 sums, 2 columns and a broadcast fill 15 of 16 registers
#else
constexpr int kLanes = 4;
constexpr int kTileVectors = 2;
#endif
constexpr int kTileRows = 6;
constexpr int kTileColumns = kLanes * kTileVectors;

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(alignof(float)), may_alias));

// `n` rounded up to whole vectors.
inline int64_t whole_vectors(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// The left factor: entry (row, k) is at data[row * row_stride + k * depth_stride].
struct Left {
  const float* data;
  int64_t row_stride;
  int64_t depth_stride;
};

template <int Rows, int Vectors>
inline void multiply_tile(Left left, const float* right, int64_t right_stride, float* sum, int64_t sum_stride,
                          int64_t depth, bool add) {
  Lanes total[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) {
      total[i][j] = add ? *reinterpret_cast<const Lanes*>(sum + i * sum_stride + j * kLanes) : Lanes{};
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Lanes columns[Vectors];
    for (int j = 0; j < Vectors; ++j) columns[j] = *reinterpret_cast<const Lanes*>(right + j * kLanes);
    for (int i = 0; i < Rows; ++i) {
      const float own = left.data[i * left.row_stride];
      for (int j = 0; j < Vectors; ++j) total[i][j] += own * columns[j];
    }
    left.data += left.depth_stride;
    right += right_stride;
  }
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) *reinterpret_cast<Lanes*>(sum + i * sum_stride + j * kLanes) = total[i][j];
  }
}

template <int Vectors>
inline void multiply_column(Left left, int64_t rows, const float* right, int64_t right_stride, float* sum,
                            int64_t sum_stride, int64_t depth, bool add) {
  for (; rows >= kTileRows; rows -= kTileRows) {
    multiply_tile<kTileRows, Vectors>(left, right, right_stride, sum, sum_stride, depth, add);
    left.data += kTileRows * left.row_stride;
    sum += kTileRows * sum_stride;
  }
  switch (rows) {
    case 5: return multiply_tile<5, Vectors>(left, right, right_stride, sum, sum_stride, depth, add);
    case 4: return multiply_tile<4, Vectors>(left, right, right_stride, sum, sum_stride, depth, add);
    case 3: return multiply_tile<3, Vectors>(left, right, right_stride, sum, sum_stride, depth, add);
    case 2: return multiply_tile<2, Vectors>(left, right, right_stride, sum, sum_stride, depth, add);
    case 1: return multiply_tile<1, Vectors>(left, right, right_stride, sum, sum_stride, depth, add);
    default: return;
  }
}

// sum[rows, columns] = (add ? sum : 0) + left[rows, depth] right[depth, columns]; `columns` is a multiple of kLanes.
// Entry (k, column) of the right factor is at right[k * right_stride + column], that of the sum likewise.
inline void multiply(Left left, int64_t rows, const float* right, int64_t right_stride, int64_t columns, float* sum,
                     int64_t sum_stride, int64_t depth, bool add) {
  constexpr int64_t kDepth = 64;  // so many rows of a column of tiles of the right factor fit the first-level cache
  for (; depth > kDepth; depth -= kDepth) {
    multiply(left, rows, right, right_stride, columns, sum, sum_stride, kDepth, add);
    left.data += kDepth * left.depth_stride;
    right += kDepth * right_stride;
    add = true;
  }
  for (; columns >= kTileColumns; columns -= kTileColumns) {
    multiply_column<kTileVectors>(left, rows, right, right_stride, sum, sum_stride, depth, add);
    right += kTileColumns;
    sum += kTileColumns;
  }
  switch (columns / kLanes) {
    case 3: return multiply_column<3>(left, rows, right, right_stride, sum, sum_stride, depth, add);
    case 2: return multiply_column<2>(left, rows, right, right_stride, sum, sum_stride, depth, add);
    case 1: return multiply_column<1>(left, rows, right, right_stride, sum, sum_stride, depth, add);
    default: return;
  }
}

// The same with a right factor in panels: kTileColumns columns lie together, [panel, depth, kTileColumns].
inline void multiply_panels(Left left, int64_t rows, const float* panels, int64_t columns, float* sum,
                            int64_t sum_stride, int64_t depth) {
  for (int64_t column = 0; column < columns; column += kTileColumns) {
    const int64_t width = columns - column < kTileColumns ? columns - column : kTileColumns;
    multiply(left, rows, panels + column * depth, kTileColumns, width, sum + column, sum_stride, depth, false);
  }
}

}  // namespace
}  // namespace triarch
