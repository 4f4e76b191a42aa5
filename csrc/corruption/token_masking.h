// BERT's masking of single tokens; megatron/objectives/token_masking.py is its twin in numpy and says what it does.
#pragma once

#include <cstdint>

namespace triarch {

struct MaskingRule {
  double share;              // of the tokens that may be chosen
  const uint8_t* is_choice;  // [vocabulary_size], 1 for tokens that may be chosen
  int64_t vocabulary_size;
  int32_t mask_token;
  int32_t first_random;  // replacements are drawn from first_random .. first_random + num_random - 1
  int64_t num_random;
};

// tokens [rows, length], seeds [rows] -> inputs [rows, length], is_chosen [rows, length]. False when a token is not of
// the vocabulary; the results are then incomplete.
bool mask_tokens(const MaskingRule& rule, int64_t rows, int64_t length, const int32_t* tokens, const uint64_t* seeds,
                 int32_t* inputs, uint8_t* is_chosen);

}  // namespace triarch
