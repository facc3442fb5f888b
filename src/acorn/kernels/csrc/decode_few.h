// Matmuls with few sequences: a vector holds columns of one, and memory sets the pace.

#pragma once
#include "decode_int8.h"

#if defined(__AVX512BW__) || defined(__aarch64__)
#define SEQUENCES 4 // sequences that are multiplied with four rows at once, so that their sums stay in registers
#else
#define SEQUENCES 2
#endif

// y[b][row .. row + R] = the products of R rows of the matrix with B vectors x[b]. R and B are known when this is
// compiled, so that the sums stay in registers.
static inline __attribute__((always_inline)) void rows_times(
    const weights *m, int type, long row, const int R, const float *x, const int B, float *y
) {
    const long columns = m->columns, whole = columns / WIDTH * WIDTH;
    f32x sums[4][4] = {0};
    for (long c = 0; c < whole; c += WIDTH) {
        for (int r = 0; r < R; r++) {
            const long place = (row + r) * columns + c;
            __builtin_prefetch((const char *)m->weight + place * (type == FP32 ? 4 : 2) + WEIGHTS_AHEAD);
            f32x w = load(m->weight, place, type);
            for (int b = 0; b < B; b++) sums[r][b] += w * load(x, b * columns + c, FP32);
        }
    }
    for (int r = 0; r < R; r++) {
        for (int b = 0; b < B; b++) {
            float sum = sum_of(sums[r][b]);
            for (long c = whole; c < columns; c++)
                sum += load_one(m->weight, (row + r) * columns + c, type) * x[b * columns + c];
            y[b * (long)m->rows + row + r] = with_scale_and_bias(m, row + r, sum);
        }
    }
}

// The same for B of all sequences, from `first` on. For INT8, x is what `arrange` made of them.
static inline __attribute__((always_inline)) void rows_times_of_any_type(
    const weights *m, int type, long row, const int R, const float *x, long first, const int B, float *y
) {
    if (type == INT8) rows_times_i16(m, row, R, x, first, B, y + first * m->rows);
    else rows_times(m, type, row, R, x + first * m->columns, B, y + first * m->rows);
}

static inline __attribute__((always_inline)) void matmul_few(
    const weights *m, const int type, const float *x, int batch, float *y
) {
#pragma omp for schedule(static) nowait
    for (long group = 0; group < (m->rows + 3) / 4; group++) {
        long row = 4 * group, b = 0;
        if (row + 4 > m->rows) {
            for (; row < m->rows; row++)
                for (b = 0; b < batch; b++) rows_times_of_any_type(m, type, row, 1, x, b, 1, y);
            continue;
        }
        for (; b + SEQUENCES <= batch; b += SEQUENCES) rows_times_of_any_type(m, type, row, 4, x, b, SEQUENCES, y);
        switch (batch - b) {
        case 3: rows_times_of_any_type(m, type, row, 4, x, b, 3, y); break;
        case 2: rows_times_of_any_type(m, type, row, 4, x, b, 2, y); break;
        case 1: rows_times_of_any_type(m, type, row, 4, x, b, 1, y);
        }
    }
}
