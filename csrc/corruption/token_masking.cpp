#include "token_masking.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "draws.h"

namespace triarch {
namespace {

bool are_known(const int32_t* tokens, int64_t length, int64_t vocabulary_size) {
  const auto bound = static_cast<uint32_t>(std::min<int64_t>(vocabulary_size, int64_t{1} << 31));
  uint32_t outside = 0;
  for (int64_t i = 0; i < length; ++i) outside |= static_cast<uint32_t>(tokens[i]) >= bound;
  return outside == 0;
}

}  // namespace

bool mask_tokens(const MaskingRule& rule, int64_t rows, int64_t length, const int32_t* tokens, const uint64_t* seeds,
                 int32_t* inputs, uint8_t* is_chosen) {
  std::vector<int32_t> choices(length + 1), chosen(length + kBitsAtOnce);
  std::vector<uint64_t> bits(length / 64 + 1);
  for (int64_t row = 0; row < rows; ++row) {
    if (!are_known(tokens, length, rule.vocabulary_size)) return false;
    int64_t num_choices = 0;
    for (int64_t i = 0; i < length; ++i) {
      choices[num_choices] = static_cast<int32_t>(i);
      num_choices += rule.is_choice[tokens[i]];
    }
    std::memcpy(inputs, tokens, length * sizeof(int32_t));
    std::memset(is_chosen, 0, length);
    // nearbyint rounds halves to even, as Python's round does.
    const int64_t wanted = std::max<int64_t>(1, static_cast<int64_t>(std::nearbyint(rule.share * num_choices)));
    const int64_t count = std::min(wanted, num_choices);
    std::fill(bits.begin(), bits.end(), 0);
    Draws draws(seeds[row]);
    draws.subset(num_choices, count, bits.data());
    set_bits(bits.data(), static_cast<int64_t>(bits.size()), chosen.data());
    for (int64_t k = 0; k < count; ++k) {
      const int32_t place = choices[chosen[k]];
      const uint64_t word = draws.word();
      const uint64_t tenth = (word >> 32) * 10 >> 32;
      const uint64_t other = (word & 0xFFFFFFFFu) * static_cast<uint64_t>(rule.num_random) >> 32;
      // Arithmetic instead of branches, which nothing could predict.
      const int32_t is_mask = -static_cast<int32_t>(tenth < 8), is_random = -static_cast<int32_t>(tenth == 8);
      const int32_t random_token = rule.first_random + static_cast<int32_t>(other);
      const int32_t own = inputs[place] & ~(is_mask | is_random);
      inputs[place] = own | (rule.mask_token & is_mask) | (random_token & is_random);
      is_chosen[place] = 1;
    }
    tokens += length;
    inputs += length;
    is_chosen += length;
  }
  return true;
}

}  // namespace triarch
