// Products of a matrix with the vectors of B sequences, for decode.c.
//
// Few sequences: a vector holds columns of one, and memory sets the pace. Many: a vector holds numbers of several, so
// that none has to be added up across a vector, and weights are converted once for 16 of them. int8.h and tiles.h do the
// same with the instructions that some CPUs have for it. Threads share the rows.

#include "vectors.h"

#define AHEAD 8192 // bytes; weights are asked for this far ahead, since CPUs stop looking ahead at every page's end

#define GROUP 16      // sequences that are multiplied together, and rows of a matrix
#define COLUMNS 64    // of a matrix, that a group of rows is read by
#define GROUPS_FROM 9 // sequences from which on that is faster
#define INT8_GROUPS_FROM 13
#define PARTS (GROUP / WIDTH) // vectors that hold a number of each sequence of a group
#if defined(__AVX512BW__)
#define ROWS 16 // of a group that are gone through at once, so that their sums stay in registers
#else
#define ROWS 4
#endif
#if defined(__AVX512BW__) || defined(__aarch64__)
#define AT_ONCE 4 // sequences that are multiplied with four rows at once, likewise
#else
#define AT_ONCE 2
#endif

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

// y[b][row .. row + R] = the products of R rows of the matrix with B vectors x[b]. R and B are known when this is
// compiled, so that the sums stay in registers.
static inline __attribute__((always_inline)) void rows_times(
    const matrix *m, int type, long row, const int R, const float *x, const int B, float *y
) {
    const long columns = m->columns, whole = columns / WIDTH * WIDTH;
    floats sums[4][4] = {0};
    for (long c = 0; c < whole; c += WIDTH) {
        for (int r = 0; r < R; r++) {
            const long place = (row + r) * columns + c;
            __builtin_prefetch((const char *)m->weight + place * (type == FP32 ? 4 : 2) + AHEAD);
            floats w = load(m->weight, place, type);
            for (int b = 0; b < B; b++) sums[r][b] += w * load(x, b * columns + c, FP32);
        }
    }
    for (int r = 0; r < R; r++) {
        for (int b = 0; b < B; b++) {
            float sum = total(sums[r][b]);
            for (long c = whole; c < columns; c++)
                sum += load_one(m->weight, (row + r) * columns + c, type) * x[b * columns + c];
            y[b * (long)m->rows + row + r] = with_scale_and_bias(m, row + r, sum);
        }
    }
}

#include "int8.h"

// The same for B of all sequences, from `first` on. For INT8, x is what `arrange` made of them.
static inline __attribute__((always_inline)) void rows_times_of_any_type(
    const matrix *m, int type, long row, const int R, const float *x, long first, const int B, float *y
) {
    if (type == INT8) rows_times_shorts(m, row, R, x, first, B, y + first * m->rows);
    else rows_times(m, type, row, R, x + first * m->columns, B, y + first * m->rows);
}

static inline __attribute__((always_inline)) void multiply_few(
    const matrix *m, const int type, const float *x, int batch, float *y
) {
#pragma omp for schedule(static) nowait
    for (long group = 0; group < (m->rows + 3) / 4; group++) {
        long row = 4 * group, b = 0;
        if (row + 4 > m->rows) {
            for (; row < m->rows; row++)
                for (b = 0; b < batch; b++) rows_times_of_any_type(m, type, row, 1, x, b, 1, y);
            continue;
        }
        for (; b + AT_ONCE <= batch; b += AT_ONCE) rows_times_of_any_type(m, type, row, 4, x, b, AT_ONCE, y);
        switch (batch - b) {
        case 3: rows_times_of_any_type(m, type, row, 4, x, b, 3, y); break;
        case 2: rows_times_of_any_type(m, type, row, 4, x, b, 2, y); break;
        case 1: rows_times_of_any_type(m, type, row, 4, x, b, 1, y);
        }
    }
}

// Asks memory for the group of rows after this one, 64 columns of it.
static inline __attribute__((always_inline)) void ask_for_next_rows(const matrix *m, int type, long row, long column) {
    const int bytes = type == FP32 ? 4 : type == BF16 ? 2 : 1; // of a number, and so lines of 64 bytes in each row
    for (long r = row + GROUP; r < row + 2 * GROUP; r++)
        for (int line = 0; line < bytes; line++)
            __builtin_prefetch((const char *)m->weight + (r * m->columns + column) * bytes + 64 * line, 0, 2);
}

// 16 rows and 64 columns of a matrix in fp32, with zeros where it ends.
static inline __attribute__((always_inline)) void copy_weights(
    const matrix *m, const int type, long row, long column, float (*weights)[COLUMNS]
) {
    const long rows = m->rows - row < GROUP ? m->rows - row : GROUP, columns = m->columns - column;
    if (rows < GROUP || columns < COLUMNS) memset(weights, 0, GROUP * sizeof *weights);
    for (int r = 0; r < rows; r++) {
        const long place = (row + r) * m->columns + column;
        if (columns < COLUMNS)
            for (int c = 0; c < columns; c++) weights[r][c] = load_one(m->weight, place + c, type);
        else
            for (int c = 0; c < COLUMNS; c += WIDTH) store(weights[r], c, load(m->weight, place + c, type), FP32);
    }
}

// Writes the sums of a group of rows and sequences where they belong.
static void write_sums(const matrix *m, long row, long first, int batch, const float (*sums)[GROUP], float *y) {
    for (long b = 0; b < GROUP && first + b < batch; b++)
        for (long r = 0; r < GROUP && row + r < m->rows; r++)
            y[(first + b) * m->rows + row + r] = with_scale_and_bias(m, row + r, sums[r][b]);
}

// `arranged`: for each group of sequences, for each column, their numbers side by side.
static inline __attribute__((always_inline)) void multiply_groups(
    const matrix *m, const int type, const float *arranged, int batch, float *y
) {
    const long padded = up_to_multiple(m->columns, COLUMNS);
#pragma omp for schedule(static) nowait
    for (long row = 0; row < m->rows; row += GROUP) {
        for (long first = 0; first < batch; first += GROUP) {
            float weights[GROUP][COLUMNS] __attribute__((aligned(64))), sums[GROUP][GROUP] = {0};
            for (long c = 0; c < padded; c += COLUMNS) {
                if (first == 0) ask_for_next_rows(m, type, row, c);
                copy_weights(m, type, row, c, weights);
                const float *inputs = arranged + first * padded + c * GROUP;
                for (int r = 0; r < GROUP; r += ROWS) {
                    floats of_rows[ROWS][PARTS];
                    memcpy(of_rows, &sums[r], sizeof of_rows);
                    for (int column = 0; column < COLUMNS; column++) {
                        for (int part = 0; part < PARTS; part++) {
                            const floats x = load(inputs, column * GROUP + part * WIDTH, FP32);
                            for (int i = 0; i < ROWS; i++) of_rows[i][part] += weights[r + i][column] * x;
                        }
                    }
                    memcpy(&sums[r], of_rows, sizeof of_rows);
                }
            }
            write_sums(m, row, first, batch, sums, y);
        }
    }
}

#include "tiles.h"

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
