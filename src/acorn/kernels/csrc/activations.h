// Activation functions of the MLP and their derivatives, for training and decoding.

#pragma once
#include "simd.h"

// 1 / (1 + e^-x)
static inline __attribute__((always_inline)) f32x sigmoid(f32x x) {
    const f32x e = exponential(-max_f32x(x, -x)); // e^-|x|, which cannot overflow
    const i32x positive = x > 0;
    return (f32x)((positive & (i32x)broadcast(1)) | (~positive & (i32x)e)) / (1 + e);
}

// GPT-2's GELU is x (1 + tanh(u)) / 2 = x sigmoid(2 u), where 2 u = x (GELU_LINEAR + GELU_CUBIC x^2).
static const float GELU_LINEAR = 1.59576912f, GELU_CUBIC = 0.0713548163f; // 2 sqrt(2 / pi), and 0.044715 times that
enum { GELU_SATURATION = 20 }; // GELU(x) is 0 below -GELU_SATURATION and x above it, to fp32 precision

// x is clamped from below: `sigmoid` returns at least e^-87, and multiplying a large negative x with it would give a
// visibly negative result. NaN stays NaN.
static inline __attribute__((always_inline)) f32x gelu(f32x x) {
    x = max_f32x(broadcast(-GELU_SATURATION), x);
    return x * sigmoid(x * (GELU_LINEAR + GELU_CUBIC * x * x));
}

// The derivative of x s(x), where s is the sigmoid above. x is clamped, since x^3 might overflow.
static inline __attribute__((always_inline)) f32x gelu_derivative(f32x x) {
    x = min_f32x(broadcast(GELU_SATURATION), max_f32x(broadcast(-GELU_SATURATION), x));
    const f32x s = sigmoid(x * (GELU_LINEAR + GELU_CUBIC * x * x));
    return s * (1 + (1 - s) * x * (GELU_LINEAR + 3 * GELU_CUBIC * x * x));
}
