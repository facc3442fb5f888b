// Softmax of one row of attention scores, forward and backward, in fp32 or bf16. Also used by attention with fp16
// matmuls.
//
// The loss (cross_entropy.c) and decoding (decode.c) have loops of their own: they sum in a different order, and their
// results have to stay bit-identical between versions.

#pragma once
#include "simd.h"

// In place: the first `n_visible` of K scores become softmax(scores * scale), the others zero. workspace: K + WIDTH
// floats.
static inline __attribute__((always_inline)) void softmax_row(
    void *scores, long at, int type, long n_visible, long K, float scale, float *workspace
) {
    f32x maxima = broadcast(-INFINITY);
    for (long c = 0; c + WIDTH <= n_visible; c += WIDTH) maxima = max_f32x(load(scores, at + c, type), maxima);
    float maximum = reduce_max(maxima);
    for (long c = n_visible / WIDTH * WIDTH; c < n_visible; c++) {
        const float score = load_scalar(scores, at + c, type);
        maximum = score > maximum ? score : maximum;
    }
    f32x sums = broadcast(0);
    for (long c = 0; c < n_visible; c += WIDTH) {
        const f32x part = exponential((load_partial(scores, at + c, n_visible - c, type) - maximum) * scale);
        store(workspace, c, part, FP32);
        if (c + WIDTH <= n_visible) sums += part;
    }
    float sum = reduce_add(sums);
    for (long c = n_visible / WIDTH * WIDTH; c < n_visible; c++) sum += workspace[c];
    const float inverse_sum = 1 / sum;
    for (long c = 0; c < n_visible; c += WIDTH)
        store_partial(scores, at + c, n_visible - c, load(workspace, c, FP32) * inverse_sum, type);
    const long size = type == FP32 ? 4 : 2;
    memset((char *)scores + (at + n_visible) * size, 0, (K - n_visible) * size);
}

// Backward of one row: the gradient of K scores from the gradient of their attention weights.
static inline __attribute__((always_inline)) void softmax_row_backward(
    const void *weights, const void *grad, long at, int type, long n_visible, long K, float scale, void *grad_scores
) {
    f32x products = {0};
    for (long c = 0; c < n_visible; c += WIDTH)
        products +=
            load_partial(weights, at + c, n_visible - c, type) * load_partial(grad, at + c, n_visible - c, type);
    const float dot = reduce_add(products);
    for (long c = 0; c < n_visible; c += WIDTH) {
        const f32x weight = load_partial(weights, at + c, n_visible - c, type) * scale;
        const f32x centered = load_partial(grad, at + c, n_visible - c, type) - dot;
        store_partial(grad_scores, at + c, n_visible - c, weight * centered, type);
    }
    const long size = type == FP32 ? 4 : 2;
    memset((char *)grad_scores + (at + n_visible) * size, 0, (K - n_visible) * size);
}
