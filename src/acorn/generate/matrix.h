// A matrix that vectors of several sequences are multiplied with, and what all ways of doing so share.

#pragma once
#include "vectors.h"

#define AHEAD 8192 // bytes; weights are asked for this far ahead, since CPUs stop looking ahead at every page's end

#define GROUP 16   // sequences that are multiplied together, and rows of a matrix
#define COLUMNS 64 // of a matrix, that a group of rows is read by

typedef struct {
    const void *weight; // (rows, columns); NULL: there is no such matrix
    const float *scale; // (rows), for INT8: what each row was divided by
    const float *bias;  // (rows), or NULL
    int32_t rows, columns;
} matrix;

static inline long up_to_multiple(long value, long of) { return (value + of - 1) / of * of; }

static inline __attribute__((always_inline)) float with_scale_and_bias(const matrix *m, long row, float sum) {
    if (m->scale) sum *= m->scale[row];
    return m->bias ? sum + m->bias[row] : sum;
}
