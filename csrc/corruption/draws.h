// Random numbers that Python computes alike: megatron/basics/draws.py has the same functions, word for word.
#pragma once

#include <cstdint>
#include <cstring>

namespace triarch {

// The words of SplitMix64 that belong to a seed, one after another (Steele et al. 2014, figure 16).
class Draws {
 public:
  explicit Draws(uint64_t seed) : state_(seed) {}

  uint64_t word() {
    state_ += 0x9E3779B97F4A7C15u;
    uint64_t word = state_;
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9u;
    word = (word ^ (word >> 27)) * 0x94D049BB133111EBu;
    return word ^ (word >> 31);
  }

  // A number from 0 to bound - 1; bound up to 2^32.
  uint64_t below(uint64_t bound) { return ((word() >> 32) * bound) >> 32; }

  // Makes `count` of is_chosen[0 .. total - 1], all of them 0 before, 1; every such set is as likely as any other.
  // Floyd's way: one word a number (Bentley and Floyd 1987).
  void subset(int64_t total, int64_t count, uint8_t* is_chosen) {
    Draws draws = *this;  // a store through is_chosen could change this object, for all the compiler knows
    for (int64_t last = total - count; last < total; ++last) {
      const uint64_t drawn = draws.below(last + 1);
      // No branch, and no address that waits for a load. Where drawn is last itself, it was not chosen before.
      const uint8_t was_chosen = is_chosen[drawn];
      is_chosen[last] = was_chosen;
      is_chosen[drawn] = 1;
    }
    *this = draws;
  }

 private:
  uint64_t state_;
};

// How many bytes a set of the numbers below `total` takes, with what lets it be read in whole blocks.
constexpr int64_t kBlock = 64;
inline int64_t bytes_of_set(int64_t total) { return (total + kBlock - 1) / kBlock * kBlock; }

// Writes the numbers whose byte is 1 in ascending order; the others are 0 up to bytes_of_set.
// numbers: room for these and kAtOnce more.
constexpr int kAtOnce = 4;

inline void read_set(const uint8_t* is_chosen, int64_t total, int32_t* numbers) {
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "byte k of a word is bits 8k .. 8k + 7");
  for (int64_t block = 0; block < total; block += kBlock) {
    uint64_t left = 0;
    for (int k = 0; k < 8; ++k) {
      uint64_t eight;
      std::memcpy(&eight, is_chosen + block + 8 * k, 8);
      left |= (eight * 0x0102040810204080u) >> 56 << (8 * k);  // the lowest bits of eight bytes, side by side
    }
    int32_t* next = numbers;
    numbers += __builtin_popcountll(left);
    // A few at a time, whether they are there or not: a loop that ends after each is mispredicted for each block.
    do {
      for (int k = 0; k < kAtOnce; ++k) {
        *next++ = static_cast<int32_t>(block + __builtin_ctzll(left | uint64_t{1} << 63));
        left &= left - 1;
      }
    } while (left != 0);
  }
}

}  // namespace triarch
