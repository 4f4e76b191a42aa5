// Storage types of a row and the arithmetic type each is computed in, written so that compilers vectorise the loops.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace triarch {
namespace {  // each instruction set gets its own copy: an inline function shared by name would mix them up

inline float float_of_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline uint32_t bits_of_float(float value) { return __builtin_bit_cast(uint32_t, value); }

struct Float {
  using Storage = float;
  using Compute = float;
  static float load(float value) { return value; }
  static float store(float value) { return value; }
};

struct Double {
  using Storage = double;
  using Compute = double;
  static double load(double value) { return value; }
  static double store(double value) { return value; }
};

struct BFloat16 {
  using Storage = uint16_t;
  using Compute = float;
  static float load(uint16_t value) { return float_of_bits(static_cast<uint32_t>(value) << 16); }
  static uint16_t store(float value) {  // to nearest, ties to even
    const uint32_t bits = bits_of_float(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return static_cast<uint16_t>(value != value ? 0x7fc0u : rounded);
  }
};

struct Half {
  using Storage = uint16_t;
  using Compute = float;
  static float load(uint16_t value) {
    const uint32_t magnitude = static_cast<uint32_t>(value & 0x7fff) << 13;
    // The multiplication moves the exponent from half's range to float's and normalises subnormal halves on the way.
    const uint32_t finite = bits_of_float(float_of_bits(magnitude) * 0x1p112f);
    const uint32_t special = magnitude | 0x7f800000u;
    const uint32_t sign = static_cast<uint32_t>(value & 0x8000) << 16;
    return float_of_bits(sign | (magnitude >= 0x0f800000u ? special : finite));
  }
  static uint16_t store(float value) {  // to nearest, ties to even
    const uint32_t bits = bits_of_float(value);
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    // Next to 0.5 a float's last bit is a subnormal half's last bit, so the addition does the rounding.
    const uint32_t subnormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    const uint32_t infinite = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    return static_cast<uint16_t>(((bits >> 16) & 0x8000u) | (magnitude >= 0x477ff000u ? infinite : finite));
  }
};

// exp(x) for x <= 0, relative error under 1.5e-7 down to the smallest normal float and 0 below it; NaN stays NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2; the polynomial is the minimax fit of exp on that range (relative error 2e-8).
inline float exp_nonpositive(float x) {
  const float kRoundToInteger = 0x1.8p23f;  // adding it leaves the integer in the low bits
  const float shifted = x * 0x1.715476p0f + kRoundToInteger;
  const float n = shifted - kRoundToInteger;
  const float r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;  // ln 2 in two parts, the first one exact times n
  float p = 0x1.6ab928p-10f;
  p = p * r + 0x1.126d64p-7f;
  p = p * r + 0x1.55589cp-5f;
  p = p * r + 0x1.55540ap-3f;
  p = p * r + 0x1.fffffap-2f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float power = float_of_bits((bits_of_float(shifted) << 23) + 0x3f800000u);
  return x < -87.33f ? 0.0f : p * power;
}

inline double exp_nonpositive(double x) { return std::exp(x); }

}  // namespace
}  // namespace triarch
