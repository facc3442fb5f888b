// A weight matrix, and what all matmul methods of decoding share.

#pragma once
#include "simd.h"

// Weights are prefetched this far ahead, because hardware prefetchers stop at the end of each page.
#define WEIGHT_PREFETCH_BYTES 8192

#define GROUP 16         // sequences, and rows of a matrix, that are multiplied together
#define GROUP_COLUMNS 64 // columns that are read from a group of rows at a time

typedef struct {
    const void *weight; // (rows, columns); NULL: the network has no such matrix
    const float *scale; // (rows), for INT8: the quantization scale of each row
    const float *bias;  // (rows), or NULL
    int32_t rows, columns;
} weights;

static inline long round_up(long value, long of) { return (value + of - 1) / of * of; }

static inline __attribute__((always_inline)) float scale_and_add_bias(const weights *m, long row, float sum) {
    if (m->scale) sum *= m->scale[row];
    return m->bias ? sum + m->bias[row] : sum;
}
