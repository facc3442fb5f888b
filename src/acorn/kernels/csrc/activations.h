// Activations of an MLP, and their derivatives: for training, and for the decoding step.

#pragma once
#include "simd.h"

// 1 / (1 + e^-x)
static inline __attribute__((always_inline)) f32x sigmoid(f32x x) {
    const f32x small = exponential(-larger(x, -x)); // e^-|x|
    const i32x positive = x > 0;
    return (f32x)((positive & (i32x)splat(1)) | (~positive & (i32x)small)) / (1 + small);
}

// GPT-2's GELU is x (1 + tanh(u)) / 2 or x sigmoid(2 u), where 2 u = x (GELU_SLOPE + GELU_BEND x^2).
static const float GELU_SLOPE = 1.59576912f, GELU_BEND = 0.0713548163f; // 2 sqrt(2 / pi), and 0.044715 times that
enum { GELU_FLAT = 20 }; // beyond which it is zero on the left, and x on the right

// Under -GELU_FLAT as there, or `sigmoid`, which ends at e^-87, times a very large number would be seen. NaN stays NaN.
static inline __attribute__((always_inline)) f32x gelu_of(f32x x) {
    x = larger(splat(-GELU_FLAT), x);
    return x * sigmoid(x * (GELU_SLOPE + GELU_BEND * x * x));
}

// Its derivative: that of x s, for a sigmoid s of x. Beyond GELU_FLAT as there, or x^3 might be infinite.
static inline __attribute__((always_inline)) f32x gelu_derivative(f32x x) {
    x = smaller(splat(GELU_FLAT), larger(splat(-GELU_FLAT), x));
    const f32x s = sigmoid(x * (GELU_SLOPE + GELU_BEND * x * x));
    return s * (1 + (1 - s) * x * (GELU_SLOPE + 3 * GELU_BEND * x * x));
}
