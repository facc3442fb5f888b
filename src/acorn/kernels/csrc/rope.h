// Rotary position embedding of one head (Su et al. 2021), for training and decoding.

#pragma once
#include "simd.h"

// Rotates each pair (element i of the first half, element i of the second half) of a head by its position's angle, or
// by the negative angle if `inverse`. y may be x.
static inline __attribute__((always_inline)) void rotate_head(
    const void *x, long at, int x_type, const float *cosine, const float *sine, long D, int inverse, void *y, long y_at,
    int y_type
) {
    const long half = D / 2;
    for (long i = 0; i < half; i += WIDTH) {
        const long n = half - i;
        const f32x first = load_partial(x, at + i, n, x_type), second = load_partial(x, at + half + i, n, x_type);
        const f32x c = load_partial(cosine, i, n, FP32);
        const f32x s = inverse ? -load_partial(sine, i, n, FP32) : load_partial(sine, i, n, FP32);
        store_partial(y, y_at + i, n, first * c - second * s, y_type);
        store_partial(y, y_at + half + i, n, second * c + first * s, y_type);
    }
}
