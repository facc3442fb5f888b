// Rotation of one head by its position (Su et al. 2021): for training, and for the decoding step.

#pragma once
#include "simd.h"

// Turns each pair (first half, second half) of a head by its position's angle, or back. y may be x.
static inline __attribute__((always_inline)) void rotate_head(
    const void *x, long at, int x_type, const float *cosine, const float *sine, long D, int back, void *y, long y_at,
    int y_type
) {
    const long half = D / 2;
    for (long i = 0; i < half; i += WIDTH) {
        const long n = half - i;
        const f32x first = load_some(x, at + i, n, x_type), second = load_some(x, at + half + i, n, x_type);
        const f32x c = load_some(cosine, i, n, FP32);
        const f32x s = back ? -load_some(sine, i, n, FP32) : load_some(sine, i, n, FP32);
        store_some(y, y_at + i, n, first * c - second * s, y_type);
        store_some(y, y_at + half + i, n, second * c + first * s, y_type);
    }
}
