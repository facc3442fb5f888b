// Matmuls with groups of sequences: a vector holds elements of several, so that none has to be summed across a vector,
// and weights are converted once for all of them.

#pragma once
#include "decode_weights.h"

#define PARTS (GROUP / WIDTH) // vectors that hold a number of each sequence of a group
#if defined(__AVX512BW__)
#define GROUP_ROWS 16 // of a group that are gone through at once, so that their sums stay in registers
#else
#define GROUP_ROWS 4
#endif

// Asks memory for the group of rows after this one, 64 columns of it.
static inline __attribute__((always_inline)) void ask_for_next_rows(const weights *m, int type, long row, long column) {
    const int bytes = type == FP32 ? 4 : type == BF16 ? 2 : 1; // of a number, and so lines of 64 bytes in each row
    for (long r = row + GROUP; r < row + 2 * GROUP; r++)
        for (int line = 0; line < bytes; line++)
            __builtin_prefetch((const char *)m->weight + (r * m->columns + column) * bytes + 64 * line, 0, 2);
}

// 16 rows and 64 columns of a matrix in fp32, with zeros where it ends.
static inline __attribute__((always_inline)) void copy_weights(
    const weights *m, const int type, long row, long column, float (*weights)[GROUP_COLUMNS]
) {
    const long rows = m->rows - row < GROUP ? m->rows - row : GROUP, columns = m->columns - column;
    if (rows < GROUP || columns < GROUP_COLUMNS) memset(weights, 0, GROUP * sizeof *weights);
    for (int r = 0; r < rows; r++) {
        const long place = (row + r) * m->columns + column;
        if (columns < GROUP_COLUMNS)
            for (int c = 0; c < columns; c++) weights[r][c] = load_one(m->weight, place + c, type);
        else
            for (int c = 0; c < GROUP_COLUMNS; c += WIDTH) store(weights[r], c, load(m->weight, place + c, type), FP32);
    }
}

// Writes the sums of a group of rows and sequences where they belong.
static void write_sums(const weights *m, long row, long first, int batch, const float (*sums)[GROUP], float *y) {
    for (long b = 0; b < GROUP && first + b < batch; b++)
        for (long r = 0; r < GROUP && row + r < m->rows; r++)
            y[(first + b) * m->rows + row + r] = with_scale_and_bias(m, row + r, sums[r][b]);
}

// `arranged`: for each group of sequences, for each column, their numbers side by side.
static inline __attribute__((always_inline)) void matmul_groups(
    const weights *m, const int type, const float *arranged, int batch, float *y
) {
    const long padded = up_to_multiple(m->columns, GROUP_COLUMNS);
#pragma omp for schedule(static) nowait
    for (long row = 0; row < m->rows; row += GROUP) {
        for (long first = 0; first < batch; first += GROUP) {
            float weights[GROUP][GROUP_COLUMNS] __attribute__((aligned(64))), sums[GROUP][GROUP] = {0};
            for (long c = 0; c < padded; c += GROUP_COLUMNS) {
                if (first == 0) ask_for_next_rows(m, type, row, c);
                copy_weights(m, type, row, c, weights);
                const float *inputs = arranged + first * padded + c * GROUP;
                for (int r = 0; r < GROUP; r += GROUP_ROWS) {
                    f32x of_rows[GROUP_ROWS][PARTS];
                    memcpy(of_rows, &sums[r], sizeof of_rows);
                    for (int column = 0; column < GROUP_COLUMNS; column++) {
                        for (int part = 0; part < PARTS; part++) {
                            const f32x x = load(inputs, column * GROUP + part * WIDTH, FP32);
                            for (int i = 0; i < GROUP_ROWS; i++) of_rows[i][part] += weights[r + i][column] * x;
                        }
                    }
                    memcpy(&sums[r], of_rows, sizeof of_rows);
                }
            }
            write_sums(m, row, first, batch, sums, y);
        }
    }
}
