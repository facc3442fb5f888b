// A matrix that vectors of several sequences are multiplied with, and what all ways of doing so share.

#pragma once
#include "simd.h"

// Bytes; weights are asked for this far ahead, since CPUs stop looking ahead at every page's end.
#define WEIGHTS_AHEAD 8192

#define GROUP 16   // sequences that are multiplied together, and rows of a matrix
#define GROUP_COLUMNS 64 // of a matrix, that a group of rows is read by

typedef struct {
    const void *weight; // (rows, columns); NULL: there is no such matrix
    const float *scale; // (rows), for INT8: what each row was divided by
    const float *bias;  // (rows), or NULL
    int32_t rows, columns;
} weights;

static inline long up_to_multiple(long value, long of) { return (value + of - 1) / of * of; }

static inline __attribute__((always_inline)) float with_scale_and_bias(const weights *m, long row, float sum) {
    if (m->scale) sum *= m->scale[row];
    return m->bias ? sum + m->bias[row] : sum;
}
