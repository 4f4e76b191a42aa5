#include "row_filler.h"

#include <algorithm>

namespace triarch {

RowFiller::RowFiller(int32_t capacity, int32_t second_capacity)
    : capacity_(capacity), second_capacity_(second_capacity), rows_of_space_(capacity + 1) {
  while (leaves_ <= capacity) leaves_ *= 2;
  most_.assign(2 * leaves_, -1);
}

int64_t RowFiller::place(int32_t size, int32_t second_size) {
  int32_t space = least_space_that_holds(size, second_size);
  OpenRow row{second_capacity_, num_rows_};
  if (space < 0) {
    ++num_rows_;
    space = capacity_;
  } else {
    row = rows_of_space_[space].top();
    rows_of_space_[space].pop();
    refresh(space);
  }
  rows_of_space_[space - size].push({row.second_space - second_size, row.number});
  refresh(space - size);
  return row.number;
}

int32_t RowFiller::least_space_that_holds(int32_t size, int32_t second_size) const {
  int32_t node = leaves_ + size;
  while (most_[node] < second_size) {
    // On to the next subtree on the right; a node that ends the tree has none.
    while (node & 1) node /= 2;
    if (node == 0) return -1;
    ++node;
  }
  while (node < leaves_) {
    node *= 2;
    if (most_[node] < second_size) ++node;
  }
  return node - leaves_;
}

void RowFiller::refresh(int32_t space) {
  int32_t node = leaves_ + space;
  const auto& rows = rows_of_space_[space];
  most_[node] = rows.empty() ? -1 : rows.top().second_space;
  for (node /= 2; node > 0; node /= 2) {
    const int32_t most = std::max(most_[2 * node], most_[2 * node + 1]);
    if (most_[node] == most) return;
    most_[node] = most;
  }
}

}  // namespace triarch
