// Matmuls for large batches. A vector holds one element of each of several sequences, so that no sum across a vector is
// needed, and weights are converted to fp32 once for a group of sequences.

#pragma once
#include "decode_weights.h"

#define VECTORS_PER_GROUP (GROUP / WIDTH) // vectors that hold one element of each sequence of a group
#if defined(__AVX512BW__)
#define ROWS_PER_PASS 16 // rows of a group that are computed together, so that their sums stay in registers
#else
#define ROWS_PER_PASS 4
#endif

// Prefetches GROUP_COLUMNS columns of the next group of rows.
static inline __attribute__((always_inline)) void prefetch_next_rows(
    const weights *m, int type, long row, long column
) {
    const int bytes = type == FP32 ? 4 : type == BF16 ? 2 : 1; // of an element; also the cache lines of 64 elements
    for (long r = row + GROUP; r < row + 2 * GROUP; r++)
        for (int line = 0; line < bytes; line++)
            __builtin_prefetch((const char *)m->weight + (r * m->columns + column) * bytes + 64 * line, 0, 2);
}

// GROUP rows and GROUP_COLUMNS columns of a matrix, converted to fp32 and padded with zeros.
static inline __attribute__((always_inline)) void copy_weights_to_fp32(
    const weights *m, const int type, long row, long column, float (*weights)[GROUP_COLUMNS]
) {
    const long rows = m->rows - row < GROUP ? m->rows - row : GROUP, columns = m->columns - column;
    if (rows < GROUP || columns < GROUP_COLUMNS) memset(weights, 0, GROUP * sizeof *weights);
    for (int r = 0; r < rows; r++) {
        const long offset = (row + r) * m->columns + column;
        if (columns < GROUP_COLUMNS)
            for (int c = 0; c < columns; c++) weights[r][c] = load_scalar(m->weight, offset + c, type);
        else
            for (int c = 0; c < GROUP_COLUMNS; c += WIDTH) store(weights[r], c, load(m->weight, offset + c, type), FP32);
    }
}

// Writes the sums of a group of rows and sequences to y, scaled and with the bias added.
static void store_sums(const weights *m, long row, long first, int batch, const float (*sums)[GROUP], float *y) {
    for (long b = 0; b < GROUP && first + b < batch; b++)
        for (long r = 0; r < GROUP && row + r < m->rows; r++)
            y[(first + b) * m->rows + row + r] = scale_and_add_bias(m, row + r, sums[r][b]);
}

// y = x times the transposed weights. `packed`: x, for each group of sequences column after column.
static inline __attribute__((always_inline)) void matmul_large_batch(
    const weights *m, const int type, const float *packed, int batch, float *y
) {
    const long padded = round_up(m->columns, GROUP_COLUMNS);
#pragma omp for schedule(static) nowait
    for (long row = 0; row < m->rows; row += GROUP) {
        for (long first = 0; first < batch; first += GROUP) {
            float weights[GROUP][GROUP_COLUMNS] __attribute__((aligned(64))), sums[GROUP][GROUP] = {0};
            for (long c = 0; c < padded; c += GROUP_COLUMNS) {
                if (first == 0) prefetch_next_rows(m, type, row, c);
                copy_weights_to_fp32(m, type, row, c, weights);
                const float *inputs = packed + first * padded + c * GROUP;
                for (int r = 0; r < GROUP; r += ROWS_PER_PASS) {
                    f32x row_sums[ROWS_PER_PASS][VECTORS_PER_GROUP];
                    memcpy(row_sums, &sums[r], sizeof row_sums);
                    for (int column = 0; column < GROUP_COLUMNS; column++) {
                        for (int part = 0; part < VECTORS_PER_GROUP; part++) {
                            const f32x x = load(inputs, column * GROUP + part * WIDTH, FP32);
                            for (int i = 0; i < ROWS_PER_PASS; i++) row_sums[i][part] += weights[r + i][column] * x;
                        }
                    }
                    memcpy(&sums[r], row_sums, sizeof row_sums);
                }
            }
            store_sums(m, row, first, batch, sums, y);
        }
    }
}
