// Products of a matrix with the vectors of B sequences, for decode.c: which way, and what it takes. Threads share the
// rows.

#pragma once
#include "few.h"
#include "groups.h"
#include "tiles.h"

#define GROUPS_FROM 9 // sequences from which on groups are faster

enum way { FEW, GROUPS, TILES };

// How so many sequences are multiplied with a matrix of this type.
static enum way way_of(int type, int batch) {
#ifdef HAS_TILES
    if (has_tiles && type != FP32 && batch >= TILES_FROM) return TILES;
#endif
    return batch >= (type == INT8 ? INT8_GROUPS_FROM : GROUPS_FROM) ? GROUPS : FEW;
}

// Floats of room that `arrange` takes for inputs of so many columns.
static long arranged_room(int batch, long columns, int n_threads) {
    const long of_groups = up_to_multiple(batch, GROUP) * up_to_multiple(columns, COLUMNS);
    const long of_few = n_threads * few_room(columns);
    return of_groups > of_few ? of_groups : of_few;
}

// Puts the inputs of products, x (B, columns), as `multiply` wants them, with zeros where there is none. All threads
// call it; when it returns, the inputs are there.
static void arrange(int type, const float *x, int batch, long columns, float *arranged) {
    const enum way way = way_of(type, batch);
    if (way == FEW) {
        if (type == INT8) arrange_few(x, batch, columns, arranged + this_thread() * few_room(columns));
        return;
    }
    const long padded = up_to_multiple(columns, COLUMNS);
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

// y (B, rows) = x (B, columns) times the matrix turned round, plus the bias. Every thread takes a stretch of rows, and
// goes on without waiting for the others.
static void multiply(const matrix *m, int type, const float *x, int batch, const float *arranged, float *y) {
    const enum way way = way_of(type, batch);
#ifdef HAS_TILES
    if (way == TILES) {
        multiply_with_tiles(m, type, (const uint16_t *)arranged, batch, y);
        return;
    }
#endif
    if (way == GROUPS && type == INT8) multiply_groups(m, INT8, arranged, batch, y);
    else if (way == GROUPS && type == BF16) multiply_groups(m, BF16, arranged, batch, y);
    else if (way == GROUPS) multiply_groups(m, FP32, arranged, batch, y);
    else if (type == INT8) multiply_few(m, INT8, arranged + this_thread() * few_room(m->columns), batch, y);
    else if (type == BF16) multiply_few(m, BF16, x, batch, y);
    else multiply_few(m, FP32, x, batch, y);
}
