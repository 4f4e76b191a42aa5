// Python's entrance to csrc/packing: shapes are checked, the result allocated, and the work done outside of the
// interpreter's lock. The Python twin in megatron/data/row_filler.py says what the function does.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>

#include "../packing/row_filler.h"

namespace py = pybind11;

namespace {

template <class Item>
using Array = py::array_t<Item, py::array::c_style>;

constexpr int32_t kLargestCapacity = 1 << 26;  // a table over all spaces is kept

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

Array<int64_t> fill_rows(const Array<int32_t>& sizes, int32_t capacity, int32_t second_capacity) {
  require(sizes.ndim() == 2 && sizes.shape(1) == 2, "sizes must be int32 [examples, 2]");
  require(capacity >= 0 && capacity <= kLargestCapacity && second_capacity >= 0, "capacities must be 0 .. 2^26");
  const int64_t examples = sizes.shape(0);
  Array<int64_t> rows(examples);
  const int32_t* const size = sizes.data();
  int64_t* const row = rows.mutable_data();
  bool all_fit = true;
  {
    const py::gil_scoped_release unlocked;
    triarch::RowFiller filler(capacity, second_capacity);
    for (int64_t example = 0; example < examples && all_fit; ++example) {
      const int32_t first = size[2 * example], second = size[2 * example + 1];
      all_fit = first >= 0 && first <= capacity && second >= 0 && second <= second_capacity;
      if (all_fit) row[example] = filler.place(first, second);
    }
  }
  require(all_fit, "an example takes more than a row has");
  return rows;
}

}  // namespace

PYBIND11_MODULE(packing_native, module) {
  module.doc() = "Best fit of examples into rows; see megatron/data/row_filler.py.";
  module.def("fill_rows", &fill_rows, py::arg("sizes").noconvert(), py::arg("capacity"), py::arg("second_capacity"),
             "the row of each example, int64 [examples]");
}
