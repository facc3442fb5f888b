// Softmax of one row of attention's scores, forward and backward, in fp32 and bf16, and with matmuls in fp16.
//
// The loss (cross_entropy.c) and the decoding step (decode.c) have loops of their own: they add up in other orders, and
// sums are to stay what they were to the last bit.

#pragma once
#include "simd.h"

// K scores become softmax(scores * scale) of the first `seen`; the others' weights are zero. workspace: K + WIDTH
// floats.
static inline __attribute__((always_inline)) void softmax_row(
    void *scores, long at, int type, long seen, long K, float scale, float *workspace
) {
    f32x largest = splat(-INFINITY);
    for (long c = 0; c + WIDTH <= seen; c += WIDTH) largest = larger(load(scores, at + c, type), largest);
    float most = largest_of(largest);
    for (long c = seen / WIDTH * WIDTH; c < seen; c++) {
        const float score = load_one(scores, at + c, type);
        most = score > most ? score : most;
    }
    f32x sums = splat(0);
    for (long c = 0; c < seen; c += WIDTH) {
        const f32x part = exponential((load_some(scores, at + c, seen - c, type) - most) * scale);
        store(workspace, c, part, FP32);
        if (c + WIDTH <= seen) sums += part;
    }
    float sum = sum_of(sums);
    for (long c = seen / WIDTH * WIDTH; c < seen; c++) sum += workspace[c];
    const float share = 1 / sum;
    for (long c = 0; c < seen; c += WIDTH)
        store_some(scores, at + c, seen - c, load(workspace, c, FP32) * share, type);
    const long size = type == FP32 ? 4 : 2;
    memset((char *)scores + (at + seen) * size, 0, (K - seen) * size);
}

// The gradient by K scores, from that by their weights.
static inline __attribute__((always_inline)) void softmax_row_backward(
    const void *weights, const void *grad, long at, int type, long seen, long K, float scale, void *grad_scores
) {
    f32x products = {0};
    for (long c = 0; c < seen; c += WIDTH)
        products += load_some(weights, at + c, seen - c, type) * load_some(grad, at + c, seen - c, type);
    const float mean = sum_of(products);
    for (long c = 0; c < seen; c += WIDTH) {
        const f32x weight = load_some(weights, at + c, seen - c, type) * scale;
        store_some(grad_scores, at + c, seen - c, weight * (load_some(grad, at + c, seen - c, type) - mean), type);
    }
    const long size = type == FP32 ? 4 : 2;
    memset((char *)grad_scores + (at + seen) * size, 0, (K - seen) * size);
}
