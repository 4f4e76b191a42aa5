// Best fit of examples into rows with two capacities. The Python twin in megatron/data/row_filler.py says what is done.
#pragma once

#include <cstdint>
#include <queue>
#include <vector>

namespace triarch {

class RowFiller {
 public:
  RowFiller(int32_t capacity, int32_t second_capacity);

  // The row that an example of this size goes to: one that is open, or the next new one. 0 <= sizes <= capacities.
  int64_t place(int32_t size, int32_t second_size);

 private:
  struct OpenRow {
    int32_t second_space;
    int64_t number;
    // The top of a heap is the row with the most space, of those alike the one opened first.
    bool operator<(const OpenRow& other) const {
      return second_space != other.second_space ? second_space < other.second_space : number > other.number;
    }
  };

  int32_t least_space_that_holds(int32_t size, int32_t second_size) const;
  void refresh(int32_t space);

  int32_t capacity_, second_capacity_;
  int64_t num_rows_ = 0;
  std::vector<std::priority_queue<OpenRow>> rows_of_space_;  // by the space that they have left
  // A tournament over the spaces, leaves from `leaves_` on: the most second space of any row below, -1 without one.
  int32_t leaves_ = 1;
  std::vector<int32_t> most_;
};

}  // namespace triarch
