// Matmuls for small batches. A vector holds columns of one sequence; memory bandwidth limits the speed.

#pragma once
#include "decode_int8.h"

#if defined(__AVX512BW__) || defined(__aarch64__)
#define SEQUENCES_PER_PASS 4 // sequences multiplied with four rows together, so that the sums stay in registers
#else
#define SEQUENCES_PER_PASS 2
#endif

// y[b][row .. row + R] = the dot products of R rows of the matrix with B vectors x[b]. R and B are compile-time
// constants, so that the sums stay in registers.
static inline __attribute__((always_inline)) void matmul_rows(
    const weights *m, int type, long row, const int R, const float *x, const int B, float *y
) {
    const long columns = m->columns, n_full = columns / WIDTH * WIDTH;
    f32x sums[4][4] = {0};
    for (long c = 0; c < n_full; c += WIDTH) {
        for (int r = 0; r < R; r++) {
            const long offset = (row + r) * columns + c;
            __builtin_prefetch((const char *)m->weight + offset * (type == FP32 ? 4 : 2) + WEIGHT_PREFETCH_BYTES);
            f32x w = load(m->weight, offset, type);
            for (int b = 0; b < B; b++) sums[r][b] += w * load(x, b * columns + c, FP32);
        }
    }
    for (int r = 0; r < R; r++) {
        for (int b = 0; b < B; b++) {
            float sum = reduce_add(sums[r][b]);
            for (long c = n_full; c < columns; c++)
                sum += load_scalar(m->weight, (row + r) * columns + c, type) * x[b * columns + c];
            y[b * (long)m->rows + row + r] = scale_and_add_bias(m, row + r, sum);
        }
    }
}

// The same for B sequences from `first` on. For INT8, x is what `pack_inputs` wrote.
static inline __attribute__((always_inline)) void matmul_rows_any_type(
    const weights *m, int type, long row, const int R, const float *x, long first, const int B, float *y
) {
    if (type == INT8) matmul_rows_int8(m, row, R, x, first, B, y + first * m->rows);
    else matmul_rows(m, type, row, R, x + first * m->columns, B, y + first * m->rows);
}

static inline __attribute__((always_inline)) void matmul_small_batch(
    const weights *m, const int type, const float *x, int batch, float *y
) {
#pragma omp for schedule(dynamic, 8) nowait // so that a thread that the system holds up holds up the others less
    for (long group = 0; group < (m->rows + 3) / 4; group++) {
        long row = 4 * group, b = 0;
        if (row + 4 > m->rows) {
            for (; row < m->rows; row++)
                for (b = 0; b < batch; b++) matmul_rows_any_type(m, type, row, 1, x, b, 1, y);
            continue;
        }
        for (; b + SEQUENCES_PER_PASS <= batch; b += SEQUENCES_PER_PASS)
            matmul_rows_any_type(m, type, row, 4, x, b, SEQUENCES_PER_PASS, y);
        switch (batch - b) {
        case 3: matmul_rows_any_type(m, type, row, 4, x, b, 3, y); break;
        case 2: matmul_rows_any_type(m, type, row, 4, x, b, 2, y); break;
        case 1: matmul_rows_any_type(m, type, row, 4, x, b, 1, y);
        }
    }
}
