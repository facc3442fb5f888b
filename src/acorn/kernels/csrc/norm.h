// RMSNorm of one row, forward and backward: of the stream, and of queries and keys.

#pragma once
#include "simd.h"

// y = x / sqrt(mean(x^2) + eps) * weight, for one row of n elements.
static inline __attribute__((always_inline)) void normalize(
    const void *x, long at, int x_type, const float *weight, float eps, long n, void *y, long y_at, int y_type
) {
    f32x squares = {0};
    for (long c = 0; c < n; c += WIDTH) {
        const f32x value = load_some(x, at + c, n - c, x_type);
        squares += value * value;
    }
    const float scale = 1 / sqrtf(sum_of(squares) / n + eps);
    for (long c = 0; c < n; c += WIDTH) {
        const f32x value = load_some(x, at + c, n - c, x_type) * scale;
        store_some(y, y_at + c, n - c, value * load_some(weight, c, n - c, FP32), y_type);
    }
}

// The gradient by x of one row, from that by y; the gradient by the weight is added to `grad_weight`.
static inline __attribute__((always_inline)) void normalize_backward(
    const void *x, long at, int x_type, const float *weight, float eps, long n, const void *grad_y, long grad_y_at,
    int y_type, void *grad_x, float *grad_weight
) {
    f32x squares = {0}, products = {0};
    for (long c = 0; c < n; c += WIDTH) {
        const f32x value = load_some(x, at + c, n - c, x_type);
        squares += value * value;
        products += value * load_some(grad_y, grad_y_at + c, n - c, y_type) * load_some(weight, c, n - c, FP32);
    }
    const float scale = 1 / sqrtf(sum_of(squares) / n + eps), shift = sum_of(products) * scale * scale / n;
    for (long c = 0; c < n; c += WIDTH) {
        const f32x value = load_some(x, at + c, n - c, x_type), grad = load_some(grad_y, grad_y_at + c, n - c, y_type);
        const f32x of_weight = load_some(grad_weight, c, n - c, FP32) + grad * value * scale;
        store_some(grad_weight, c, n - c, of_weight, FP32);
        const f32x of_x = (grad * load_some(weight, c, n - c, FP32) - value * shift) * scale;
        store_some(grad_x, at + c, n - c, of_x, x_type);
    }
}
