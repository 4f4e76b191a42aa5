// Python's entrance to csrc/corruption: shapes are checked, the results allocated, and the work done outside of the
// interpreter's lock. The numpy twins in megatron/objectives say what the functions do.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <utility>

#include "../corruption/span_corruption.h"
#include "../corruption/token_masking.h"

namespace py = pybind11;

namespace {

template <class Item>
using Array = py::array_t<Item, py::array::c_style>;

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

template <class Item>
void require_rows(const Array<int32_t>& tokens, const Array<Item>& seeds) {
  require(tokens.ndim() == 2, "tokens must be int32 [rows, length]");
  require(seeds.ndim() == 1 && seeds.shape(0) == tokens.shape(0), "seeds must be uint64 [rows]");
  require(tokens.shape(1) < std::numeric_limits<int32_t>::max(), "rows must be shorter than 2^31 tokens");
}

py::tuple corrupt_spans(const Array<int32_t>& tokens, const Array<uint64_t>& seeds, const Array<int32_t>& sentinels,
                        int64_t noise, int64_t spans) {
  require_rows(tokens, seeds);
  const int64_t rows = tokens.shape(0);
  const triarch::SpanPlan plan{tokens.shape(1), noise, spans};
  require(spans >= 1 && spans <= noise && spans <= plan.num_clean(), "spans must be 1 .. min(noise, length - noise)");
  require(sentinels.ndim() == 1 && sentinels.shape(0) >= spans, "sentinels must be int32 [spans or more]");
  Array<int32_t> inputs({rows, plan.num_inputs()}), targets({rows, plan.num_targets()});
  int32_t *const inputs_begin = inputs.mutable_data(), *const targets_begin = targets.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    triarch::corrupt_spans(plan, rows, tokens.data(), seeds.data(), sentinels.data(), inputs_begin, targets_begin);
  }
  return py::make_tuple(inputs, targets);
}

using Range = std::pair<uint32_t, uint32_t>;  // first id, number of ids

py::tuple mask_tokens(const Array<int32_t>& tokens, const Array<uint64_t>& seeds, const Array<bool>& is_choice,
                      Range plain, double share, int32_t mask_token, Range random) {
  require_rows(tokens, seeds);
  const int64_t vocabulary_size = is_choice.ndim() == 1 ? is_choice.shape(0) : -1;
  require(vocabulary_size >= 0 && vocabulary_size < std::numeric_limits<int32_t>::max(),
          "is_choice must be bool [vocabulary size]");
  require(int64_t{plain.first} + plain.second <= vocabulary_size, "plain tokens must be of the vocabulary");
  require(share >= 0.0 && share <= 1.0, "share must be from 0 to 1");
  const int64_t rows = tokens.shape(0), length = tokens.shape(1);
  const triarch::MaskingRule rule{share,
                                  reinterpret_cast<const uint8_t*>(is_choice.data()),
                                  static_cast<uint32_t>(vocabulary_size),
                                  {plain.first, plain.second},
                                  mask_token,
                                  {random.first, random.second}};
  Array<int32_t> inputs({rows, length});
  Array<bool> is_chosen({rows, length});
  int32_t* const inputs_begin = inputs.mutable_data();
  auto* const is_chosen_begin = reinterpret_cast<uint8_t*>(is_chosen.mutable_data());
  bool are_known = false;
  {
    const py::gil_scoped_release unlocked;
    are_known = triarch::mask_tokens(rule, rows, length, tokens.data(), seeds.data(), inputs_begin, is_chosen_begin);
  }
  require(are_known, "tokens must be ids of the vocabulary");
  return py::make_tuple(inputs, is_chosen);
}

}  // namespace

PYBIND11_MODULE(corruption_native, module) {
  module.doc() = "Span corruption and token masking; see megatron/objectives/noise_spans.py and token_masking.py.";
  module.def("corrupt_spans", &corrupt_spans, py::arg("tokens").noconvert(), py::arg("seeds").noconvert(),
             py::arg("sentinels").noconvert(), py::arg("noise"), py::arg("spans"),
             "(inputs int32 [rows, n - noise + spans], targets int32 [rows, noise + spans])");
  module.def("mask_tokens", &mask_tokens, py::arg("tokens").noconvert(), py::arg("seeds").noconvert(),
             py::arg("is_choice").noconvert(), py::arg("plain"), py::arg("share"), py::arg("mask_token"),
             py::arg("random"), "(inputs int32 [rows, n], is_chosen bool [rows, n])");
}
