#include "token_masking.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "draws.h"

namespace triarch {
namespace {

bool all_in(const IdRange& range, const int32_t* tokens, int64_t length) {
  uint32_t outside = 0;
  for (int64_t i = 0; i < length; ++i) outside |= static_cast<uint32_t>(tokens[i]) - range.first >= range.count;
  return outside == 0;
}

// Writes the positions of a row that may be chosen and returns their number; -1 for ids that are not of the vocabulary.
int64_t find_choices(const MaskingRule& rule, const int32_t* tokens, int64_t length, int32_t* choices) {
  const IdRange known{0, rule.vocabulary_size};
  int64_t found = 0;
  for (int64_t begin = 0; begin < length; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, length);
    if (all_in(rule.plain, tokens + begin, end - begin)) {
      for (int64_t i = begin; i < end; ++i) choices[found + i - begin] = static_cast<int32_t>(i);
      found += end - begin;
      continue;
    }
    if (!all_in(known, tokens + begin, end - begin)) return -1;
    for (int64_t i = begin; i < end; ++i) {
      choices[found] = static_cast<int32_t>(i);
      found += rule.is_choice[tokens[i]];
    }
  }
  return found;
}

// BERT's rule for the chosen places of a row: 80 % mask, 10 % a random token, 10 % as they are.
void replace(const MaskingRule& rule, Draws draws, const int32_t* choices, const int32_t* chosen, int64_t count,
             int32_t* inputs, uint8_t* is_chosen) {
  // Copies, since a store of a byte could change the rule, for all the compiler knows.
  const int32_t mask_token = rule.mask_token;
  const IdRange random = rule.random;
  for (int64_t k = 0; k < count; ++k) {
    const int32_t place = choices[chosen[k]];
    const uint64_t word = draws.word();
    const uint64_t tenth = (word >> 32) * 10 >> 32;
    const auto other = static_cast<int32_t>(random.first + ((word & 0xFFFFFFFFu) * random.count >> 32));
    // Arithmetic instead of branches, which nothing could predict.
    const int32_t is_mask = -static_cast<int32_t>(tenth < 8), is_random = -static_cast<int32_t>(tenth == 8);
    const int32_t own = inputs[place] & ~(is_mask | is_random);
    inputs[place] = own | (mask_token & is_mask) | (other & is_random);
    is_chosen[place] = 1;
  }
}

}  // namespace

bool mask_tokens(const MaskingRule& rule, int64_t rows, int64_t length, const int32_t* tokens, const uint64_t* seeds,
                 int32_t* inputs, uint8_t* is_chosen) {
  std::vector<int32_t> choices(length + 1), chosen(length + kAtOnce);
  std::vector<uint8_t> set(bytes_of_set(length));
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t num_choices = find_choices(rule, tokens, length, choices.data());
    if (num_choices < 0) return false;
    std::memcpy(inputs, tokens, length * sizeof(int32_t));
    std::memset(is_chosen, 0, length);
    // nearbyint rounds halves to even, as Python's round does.
    const int64_t wanted = std::max<int64_t>(1, static_cast<int64_t>(std::nearbyint(rule.share * num_choices)));
    const int64_t count = std::min(wanted, num_choices);
    std::fill(set.begin(), set.end(), 0);
    Draws draws(seeds[row]);
    draws.subset(num_choices, count, set.data());
    read_set(set.data(), num_choices, chosen.data());
    replace(rule, draws, choices.data(), chosen.data(), count, inputs, is_chosen);
    tokens += length;
    inputs += length;
    is_chosen += length;
  }
  return true;
}

}  // namespace triarch
