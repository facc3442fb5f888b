// Matmuls of weights with the vectors of B sequences, for decode.c: which way, and what it takes. Threads share the
// rows.

#pragma once
#include "decode_few.h"
#include "decode_batch.h"
#include "decode_tiles.h"

#define GROUPS_FROM 9 // sequences from which on groups are faster

enum way { FEW, GROUPS, TILES };

// How so many sequences are multiplied with a matrix of this type.
static enum way way_of(int type, int batch) {
#ifdef HAS_TILES
    if (has_tiles && type != FP32 && batch >= TILES_FROM) return TILES;
#endif
    return batch >= (type == INT8 ? INT8_GROUPS_FROM : GROUPS_FROM) ? GROUPS : FEW;
}

// Floats of workspace that `arrange` takes for inputs of so many columns.
static long arranged_floats(int batch, long columns, int n_threads) {
    const long of_groups = up_to_multiple(batch, GROUP) * up_to_multiple(columns, GROUP_COLUMNS);
    const long of_few = n_threads * few_floats(columns);
    return of_groups > of_few ? of_groups : of_few;
}

// Puts the inputs of matmuls, x (B, columns), as `decode_matmul` wants them, with zeros where there is none. All
// threads call it; when it returns, the inputs are there.
static void arrange(int type, const float *x, int batch, long columns, float *arranged) {
    const enum way way = way_of(type, batch);
    if (way == FEW) {
        if (type == INT8) arrange_few(x, batch, columns, arranged + this_thread() * few_floats(columns));
        return;
    }
    const long padded = up_to_multiple(columns, GROUP_COLUMNS);
    for (long first = 0; first < batch; first += GROUP) {
#pragma omp for schedule(static) nowait
        for (long c = 0; c < padded; c++) {
            for (long b = 0; b < GROUP; b++) {
                const float number = first + b < batch && c < columns ? x[(first + b) * columns + c] : 0;
                if (way == GROUPS) arranged[first * padded + c * GROUP + b] = number;
                else store_one(arranged, first * padded + (c / 2 * GROUP + b) * 2 + c % 2, number, BF16);
            }
        }
    }
#pragma omp barrier
}

// y (B, rows) = x (B, columns) times the transposed weights, plus the bias. Every thread takes a stretch of rows, and
// goes on without waiting for the others.
static void decode_matmul(const weights *m, int type, const float *x, int batch, const float *arranged, float *y) {
    const enum way way = way_of(type, batch);
#ifdef HAS_TILES
    if (way == TILES) {
        matmul_tiles(m, type, (const uint16_t *)arranged, batch, y);
        return;
    }
#endif
    if (way == GROUPS && type == INT8) matmul_groups(m, INT8, arranged, batch, y);
    else if (way == GROUPS && type == BF16) matmul_groups(m, BF16, arranged, batch, y);
    else if (way == GROUPS) matmul_groups(m, FP32, arranged, batch, y);
    else if (type == INT8) matmul_few(m, INT8, arranged + this_thread() * few_floats(m->columns), batch, y);
    else if (type == BF16) matmul_few(m, BF16, x, batch, y);
    else matmul_few(m, FP32, x, batch, y);
}
