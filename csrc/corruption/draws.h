// Random numbers that Python computes alike: megatron/basics/draws.py has the same functions, word for word.
#pragma once

#include <cstdint>

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

  // Sets `count` of the bits 0 .. total - 1, all of them clear before; every such set is as likely as any other.
  // Floyd's way: one word a bit, and no bit is moved (Bentley and Floyd 1987).
  void subset(int64_t total, int64_t count, uint64_t* bits) {
    for (int64_t last = total - count; last < total; ++last) {
      const uint64_t drawn = below(last + 1);
      const uint64_t is_taken = bits[drawn >> 6] >> (drawn & 63) & 1;
      // Both bits are written where one would do: an address that depends on is_taken would hold up the next load.
      bits[drawn >> 6] |= uint64_t{1} << (drawn & 63);
      bits[last >> 6] |= is_taken << (last & 63);
    }
  }

 private:
  uint64_t state_;
};

// Writes the numbers of the set bits of bits[0 .. words - 1] in ascending order and returns how many there are.
// numbers: room for these and kBitsAtOnce more.
constexpr int kBitsAtOnce = 4;

inline int64_t set_bits(const uint64_t* bits, int64_t words, int32_t* numbers) {
  int64_t found = 0;
  for (int64_t w = 0; w < words; ++w) {
    uint64_t left = bits[w];
    int32_t* next = numbers + found;
    found += __builtin_popcountll(left);
    // A few at a time, whether they are there or not: a loop that ends after each bit is mispredicted for each word.
    do {
      for (int k = 0; k < kBitsAtOnce; ++k) {
        *next++ = static_cast<int32_t>(w * 64 + __builtin_ctzll(left | uint64_t{1} << 63));
        left &= left - 1;
      }
    } while (left != 0);
  }
  return found;
}

}  // namespace triarch
