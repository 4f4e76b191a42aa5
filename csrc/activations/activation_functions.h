// Activations of feed-forward layers and their derivatives, written so that compilers vectorise loops over them.
#pragma once

#include "../attention/row_scalars.h"

namespace triarch {
namespace {  // each instruction set gets its own copy: an inline function shared by name would mix them up

// A function at one point, and its derivative there.
template <class Compute>
struct Point {
  Compute value;
  Compute slope;
};

// 1 / (1 + exp(-x)); both sides of zero are computed from exp(-|x|), so nothing cancels and nothing overflows.
template <class Compute>
inline Point<Compute> logistic(Compute x) {
  const Compute small = exp_nonpositive(x < 0 ? x : -x);
  const Compute share = 1 / (1 + small);
  return {x < 0 ? small * share : share, small * share * share};
}

// The normal distribution function and its density. With t = 1 / (1 + 5/16 |x|), the probability beyond |x| is the bell
// exp(-x^2 / 2) times t times a polynomial: the minimax fit of erfc(z) exp(z^2) / 2, z = |x| / sqrt(2), in t, relative
// error 2.5e-8 with the coefficients rounded to float. The tail keeps its relative precision, unlike 1 + erf(z).
inline Point<float> normal(float x) {
  const float t = 1.0f / (1.0f + 0.3125f * (x < 0 ? -x : x));
  const float bell = exp_nonpositive(-0.5f * (x * x));
  float p = -0x1.344d88p-6f;
  p = p * t + 0x1.71da0cp-4f;
  p = p * t - 0x1.2fe8acp-3f;
  p = p * t + 0x1.217718p-4f;
  p = p * t + 0x1.003706p-11f;
  p = p * t + 0x1.b9a042p-5f;
  p = p * t + 0x1.735120p-4f;
  p = p * t + 0x1.c9c858p-4f;
  p = p * t + 0x1.ff0936p-4f;
  p = p * t + 0x1.fea058p-4f;
  const float beyond = bell * (t * p);
  return {x < 0 ? beyond : 1.0f - beyond, bell * 0x1.988454p-2f};
}

inline Point<double> normal(double x) {
  return {0.5 * std::erfc(-x * 0x1.6a09e667f3bcdp-1), std::exp(-0.5 * (x * x)) * 0x1.9884533d43651p-2};
}

struct Relu {
  template <class Compute>
  static Compute value(Compute x) {
    return x < 0 ? 0 : x;  // NaN stays NaN
  }
  template <class Compute>
  static Point<Compute> point(Compute x) {
    return {value(x), static_cast<Compute>(x > 0 ? 1 : 0)};
  }
};

// x times the normal distribution function (Hendrycks and Gimpel 2016).
struct Gelu {
  template <class Compute>
  static Compute value(Compute x) {
    return x * normal(x).value;
  }
  template <class Compute>
  static Point<Compute> point(Compute x) {
    const Point<Compute> n = normal(x);
    return {x * n.value, n.value + x * n.slope};
  }
};

// Their approximation 0.5 x (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3), which is x logistic(2 u).
struct GeluTanh {
  template <class Compute>
  static Compute value(Compute x) {
    return x * logistic(argument(x).value).value;
  }
  template <class Compute>
  static Point<Compute> point(Compute x) {
    const Point<Compute> a = argument(x);
    const Point<Compute> l = logistic(a.value);
    return {x * l.value, l.value + x * l.slope * a.slope};
  }

 private:
  template <class Compute>
  static Point<Compute> argument(Compute x) {  // 2 u
    const Compute linear = static_cast<Compute>(0x1.9884533d43651p+0), cubic = linear * static_cast<Compute>(0.044715);
    return {x * (linear + cubic * (x * x)), linear + 3 * cubic * (x * x)};
  }
};

// x logistic(x), also called Swish (Ramachandran et al. 2017).
struct Silu {
  template <class Compute>
  static Compute value(Compute x) {
    return x * logistic(x).value;
  }
  template <class Compute>
  static Point<Compute> point(Compute x) {
    const Point<Compute> l = logistic(x);
    return {x * l.value, l.value + x * l.slope};
  }
};

}  // namespace
}  // namespace triarch
