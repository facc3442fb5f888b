// RMSNorm of one row, forward and backward: for the residual stream, and for queries and keys.

#pragma once
#include "simd.h"

// y = x / sqrt(mean(x^2) + eps) * weight, for one row of n elements.
static inline __attribute__((always_inline)) void rmsnorm_row(
    const void *x, long at, int x_type, const float *weight, float eps, long n, void *y, long y_at, int y_type
) {
    f32x squares = {0};
    for (long c = 0; c < n; c += WIDTH) {
        const f32x value = load_partial(x, at + c, n - c, x_type);
        squares += value * value;
    }
    const float scale = 1 / sqrtf(reduce_add(squares) / n + eps);
    for (long c = 0; c < n; c += WIDTH) {
        const f32x value = load_partial(x, at + c, n - c, x_type) * scale;
        store_partial(y, y_at + c, n - c, value * load_partial(weight, c, n - c, FP32), y_type);
    }
}

// Backward of one row: writes grad_x, and adds the row's part of the weight's gradient to `grad_weight`.
static inline __attribute__((always_inline)) void rmsnorm_row_backward(
    const void *x, long at, int x_type, const float *weight, float eps, long n, const void *grad_y, long grad_y_at,
    int y_type, void *grad_x, float *grad_weight
) {
    f32x squares = {0}, products = {0};
    for (long c = 0; c < n; c += WIDTH) {
        const f32x value = load_partial(x, at + c, n - c, x_type);
        squares += value * value;
        products += value * load_partial(grad_y, grad_y_at + c, n - c, y_type) * load_partial(weight, c, n - c, FP32);
    }
    const float scale = 1 / sqrtf(reduce_add(squares) / n + eps), shift = reduce_add(products) * scale * scale / n;
    for (long c = 0; c < n; c += WIDTH) {
        const f32x value = load_partial(x, at + c, n - c, x_type);
        const f32x grad = load_partial(grad_y, grad_y_at + c, n - c, y_type);
        const f32x weight_sum = load_partial(grad_weight, c, n - c, FP32) + grad * value * scale;
        store_partial(grad_weight, c, n - c, weight_sum, FP32);
        const f32x x_grad = (grad * load_partial(weight, c, n - c, FP32) - value * shift) * scale;
        store_partial(grad_x, at + c, n - c, x_grad, x_type);
    }
}
