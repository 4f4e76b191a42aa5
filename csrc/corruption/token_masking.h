// BERT's masking of single tokens; megatron/objectives/token_masking.py is its twin in numpy and says what it does.
#pragma once

#include <cstdint>

namespace triarch {

struct IdRange {
  uint32_t first, count;
};

struct MaskingRule {
  double share;              // of the tokens that may be chosen
  const uint8_t* is_choice;  // [vocabulary_size], 1 for tokens that may be chosen
  uint32_t vocabulary_size;
  IdRange plain;  // a range of ids that may all be chosen, best as long as can be: what lies in it is not looked up
  int32_t mask_token;
  IdRange random;  // of which replacements are drawn
};

// tokens [rows, length], seeds [rows] -> inputs [rows, length], is_chosen [rows, length]. False when a token is not of
// the vocabulary; the results are then incomplete.
bool mask_tokens(const MaskingRule& rule, int64_t rows, int64_t length, const int32_t* tokens, const uint64_t* seeds,
                 int32_t* inputs, uint8_t* is_chosen);

}  // namespace triarch
