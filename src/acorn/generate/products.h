// Products of a matrix with the vectors of B sequences, for decode.c.

#include "vectors.h"
#if defined(__AMX_BF16__) && defined(__linux__)
#define HAS_TILES // Intel's matrix unit, in CPUs since Sapphire Rapids
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define AHEAD 8192 // bytes; weights are asked for this far ahead, since CPUs stop looking ahead at every page's end

#define GROUP 16        // sequences that are multiplied together, and rows of a matrix
#define COLUMNS 64      // of a matrix, that a group of rows is read by
#define WORDS 16        // of 32 bits, that they fill in int8
#define TILE_COLUMNS 32 // bf16 numbers in a row of a tile
#define GROUPS_FROM 9   // sequences from which on groups are faster
#define TILES_FROM 5    // likewise, where tiles multiply groups
#define PARTS (GROUP / WIDTH) // vectors that hold a number of each sequence of a group
#if defined(__AVX512F__)
#define ROWS 16 // of a group that are gone through at once, so that their sums stay in registers
#else
#define ROWS 4
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
#define AT_ONCE 4 // sequences that are multiplied with four rows at once, likewise
#else
#define AT_ONCE 2
#endif

typedef struct {
    const void *weight; // (rows, columns); NULL: there is no such matrix. For INT8 see `floats_of_byte`
    const float *scale; // (rows), for INT8: what each row was divided by
    const float *bias;  // (rows), or NULL
    int32_t rows, columns;
} matrix;

// INT8: of each 64 columns, byte j of 32-bit word i is column 16 j + i, so that shifts, which every CPU has, part words into
// vectors of neighbours.
static inline __attribute__((always_inline)) floats floats_of_byte(words four, int byte) {
    return __builtin_convertvector((integers)(four << (24 - 8 * byte)) >> 24, floats);
}

// y[b][row .. row + R] = the products of R rows of the matrix with B vectors x[b]. R and B are known when this is
// compiled, so that the sums stay in registers.
static inline __attribute__((always_inline)) void rows_times(
    const matrix *m, int type, long row, const int R, const float *x, const int B, float *y
) {
    const long columns = m->columns;
    floats sums[4][4] = {0};
    long c = 0;
    for (; type == INT8 && c + COLUMNS <= columns; c += COLUMNS) {
        for (int r = 0; r < R; r++) {
            const int8_t *place = (const int8_t *)m->weight + (row + r) * columns + c;
            __builtin_prefetch(place + AHEAD);
            for (int word = 0; word < WORDS; word += WIDTH) {
                const words four = *(const words *)(place + 4 * word);
                for (int byte = 0; byte < 4; byte++) {
                    floats w = floats_of_byte(four, byte);
                    for (int b = 0; b < B; b++)
                        sums[r][b] += w * load(x, b * columns + c + byte * WORDS + word, FP32);
                }
            }
        }
    }
    for (; type != INT8 && c + WIDTH <= columns; c += WIDTH) {
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
            for (long rest = c; rest < columns; rest++)
                sum += load_one(m->weight, (row + r) * columns + rest, type) * x[b * columns + rest];
            if (type == INT8) sum *= m->scale[row + r];
            if (m->bias) sum += m->bias[row + r];
            y[b * (long)m->rows + row + r] = sum;
        }
    }
}

// Four rows at a time.
static inline __attribute__((always_inline)) void multiply_few(
    const matrix *m, const int type, const float *x, int batch, float *y
) {
#pragma omp for schedule(static) nowait
    for (long group = 0; group < (m->rows + 3) / 4; group++) {
        long row = 4 * group;
        if (row + 4 > m->rows) {
            for (; row < m->rows; row++)
                for (long b = 0; b < batch; b++)
                    rows_times(m, type, row, 1, x + b * m->columns, 1, y + b * m->rows);
            continue;
        }
        long b = 0;
        for (; b + AT_ONCE <= batch; b += AT_ONCE)
            rows_times(m, type, row, 4, x + b * m->columns, AT_ONCE, y + b * m->rows);
        switch (batch - b) {
        case 3: rows_times(m, type, row, 4, x + b * m->columns, 3, y + b * m->rows); break;
        case 2: rows_times(m, type, row, 4, x + b * m->columns, 2, y + b * m->rows); break;
        case 1: rows_times(m, type, row, 4, x + b * m->columns, 1, y + b * m->rows);
        }
    }
}

static long up_to_multiple(long value, long of) {
    return (value + of - 1) / of * of;
}

#ifdef HAS_TILES
static int has_tiles; // whether Linux, which wants to be asked before the first use, lets this process have them

static void ask_for_tiles(void) {
    has_tiles = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
}

static void begin_tiles(void) {
    static const struct { // static: compilers were seen to take only the first bytes of it as read
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shapes = {
        .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64}, .rows = {GROUP, GROUP, GROUP, GROUP, GROUP, GROUP}
    };
    _tile_loadconfig(&shapes);
}
#else
static const int has_tiles = 0;
#endif

enum way { FEW, GROUPS, TILES };

// How so many sequences are multiplied with a matrix of this type.
static enum way way_of(int type, int batch) {
    if (has_tiles && type != FP32 && batch >= TILES_FROM) return TILES;
    return batch >= GROUPS_FROM ? GROUPS : FEW;
}

// Bytes of the inputs of a product as `arrange` leaves them.
static long arranged_bytes(int batch, long columns) {
    return up_to_multiple(batch, GROUP) * up_to_multiple(columns, COLUMNS) * sizeof(float);
}

// Puts the numbers of the sequences of a group side by side, column by column, with zeros where there is none; for tiles,
// which want bf16, two columns at a time. All threads share the work, and go on when it is done.
static void arrange(int type, const float *x, int batch, long columns, void *arranged) {
    const enum way way = way_of(type, batch);
    if (way == FEW) return;
    const long padded = up_to_multiple(columns, COLUMNS);
    for (long first = 0; first < batch; first += GROUP) {
#pragma omp for schedule(static) nowait
        for (long c = 0; c < padded; c++) {
            for (long b = 0; b < GROUP; b++) {
                const float number = first + b < batch && c < columns ? x[(first + b) * columns + c] : 0;
                if (way == GROUPS) store_one(arranged, first * padded + c * GROUP + b, number, FP32);
                else store_one(arranged, first * padded + (c / 2 * GROUP + b) * 2 + c % 2, number, BF16);
            }
        }
    }
#pragma omp barrier
}

// 16 rows and 64 columns of a matrix in fp32, with zeros where it ends.
static inline __attribute__((always_inline)) void copy_weights(
    const matrix *m, const int type, long row, long column, float (*weights)[COLUMNS]
) {
    const long rows = m->rows - row < GROUP ? m->rows - row : GROUP, columns = m->columns - column;
    const int bytes = type == FP32 ? 4 : type == BF16 ? 2 : 1; // of a number, and so lines of 64 bytes in each row
    if (rows < GROUP || columns < COLUMNS) memset(weights, 0, GROUP * sizeof *weights);
    for (int r = 0; r < rows; r++) {
        const long place = (row + r) * m->columns + column;
        for (int line = 0; line < bytes; line++) // what the next rows will want
            __builtin_prefetch((const char *)m->weight + (place + GROUP * m->columns) * bytes + 64 * line, 0, 2);
        if (columns < COLUMNS) {
            for (int c = 0; c < columns; c++) weights[r][c] = load_one(m->weight, place + c, type);
        } else if (type == INT8) {
            for (int word = 0; word < WORDS; word += WIDTH) {
                const words four = *(const words *)((const int8_t *)m->weight + place + 4 * word);
                for (int byte = 0; byte < 4; byte++)
                    store(weights[r], byte * WORDS + word, floats_of_byte(four, byte), FP32);
            }
        } else {
            for (int c = 0; c < COLUMNS; c += WIDTH) store(weights[r], c, load(m->weight, place + c, type), FP32);
        }
    }
}

// Writes the sums of a group of rows and sequences where they belong.
static void write_sums(
    const matrix *m, int type, long row, long first, int batch, const float (*sums)[GROUP], float *y
) {
    for (long b = 0; b < GROUP && first + b < batch; b++) {
        for (long r = 0; r < GROUP && row + r < m->rows; r++) {
            float sum = sums[r][b];
            if (type == INT8) sum *= m->scale[row + r];
            if (m->bias) sum += m->bias[row + r];
            y[(first + b) * m->rows + row + r] = sum;
        }
    }
}

// As `multiply_few`, for groups of sequences: a vector holds numbers of several, so that none has to be added up across a
// vector, and weights are converted once for all.
static inline __attribute__((always_inline)) void multiply_groups(
    const matrix *m, const int type, const float *arranged, int batch, float *y
) {
    const long padded = up_to_multiple(m->columns, COLUMNS);
#pragma omp for schedule(static) nowait
    for (long row = 0; row < m->rows; row += GROUP) {
        for (long first = 0; first < batch; first += GROUP) {
            float weights[GROUP][COLUMNS] __attribute__((aligned(64))), sums[GROUP][GROUP] = {0};
            for (long c = 0; c < padded; c += COLUMNS) {
                copy_weights(m, type, row, c, weights);
                const float *inputs = arranged + first * padded + c * GROUP;
                for (int r = 0; r < GROUP; r += ROWS) {
                    floats of_rows[ROWS][PARTS];
                    memcpy(of_rows, sums[r], sizeof of_rows);
                    for (int column = 0; column < COLUMNS; column++) {
                        for (int part = 0; part < PARTS; part++) {
                            const floats x = load(inputs, column * GROUP + part * WIDTH, FP32);
                            for (int i = 0; i < ROWS; i++) of_rows[i][part] += weights[r + i][column] * x;
                        }
                    }
                    memcpy(sums[r], of_rows, sizeof of_rows);
                }
            }
            write_sums(m, type, row, first, batch, sums, y);
        }
    }
}

#ifdef HAS_TILES
// Asks memory for a group of 16 rows and 64 columns: what the next rows will want.
static inline void ask_for_group(const matrix *m, int type, long row, long column) {
    const int bytes = type == BF16 ? 2 : 1; // of a number, and so lines of 64 bytes in each row
    for (long r = row; r < row + GROUP; r++)
        for (int line = 0; line < bytes; line++)
            __builtin_prefetch((const char *)m->weight + (r * m->columns + column) * bytes + 64 * line, 0, 2);
}

// 16 rows and 64 columns of a matrix as two tiles of bf16, with zeros where it ends. An int8 number has a bf16 number of
// its own.
static void copy_tiles(const matrix *m, int type, long row, long column, uint16_t (*tiles)[GROUP][TILE_COLUMNS]) {
    const long rows = m->rows - row < GROUP ? m->rows - row : GROUP, columns = m->columns - column;
    if (rows < GROUP || columns < COLUMNS) memset(tiles, 0, 2 * sizeof *tiles);
    for (int r = 0; r < rows; r++) {
        const long place = (row + r) * m->columns + column;
        for (int word = 0; type == INT8 && columns >= COLUMNS && word < WORDS; word += WIDTH) {
            const words four = *(const words *)((const int8_t *)m->weight + place + 4 * word);
            for (int byte = 0; byte < 4; byte++)
                *(halves *)&tiles[byte / 2][r][byte % 2 * WORDS + word] =
                    narrowed((words)floats_of_byte(four, byte) >> 16);
        }
        if (type == INT8 && columns >= COLUMNS) continue;
        for (int c = 0; c < COLUMNS && c < columns; c++)
            store_one(tiles[c / TILE_COLUMNS][r], c % TILE_COLUMNS, load_one(m->weight, place + c, type), BF16);
    }
}

// As `multiply_groups`, for bf16 and int8. Inputs are rounded to bf16.
static void multiply_with_tiles(const matrix *m, int type, const uint16_t *arranged, int batch, float *y) {
    const long padded = up_to_multiple(m->columns, COLUMNS);
#pragma omp for schedule(static) nowait
    for (long row = 0; row < m->rows; row += GROUP) {
        for (long first = 0; first < batch; first += GROUP) {
            const uint16_t *pairs = arranged + first * padded;
            _tile_zero(0);
            _tile_zero(1);
            for (long c = 0; c < padded; c += COLUMNS) {
                if (first == 0) ask_for_group(m, type, row + GROUP, c);
                if (type == BF16 && row + GROUP <= m->rows && c + COLUMNS <= m->columns) {
                    const uint16_t *place = (const uint16_t *)m->weight + row * m->columns + c;
                    _tile_loadd(2, place, 2 * m->columns);
                    _tile_loadd(3, place + TILE_COLUMNS, 2 * m->columns);
                } else {
                    uint16_t tiles[2][GROUP][TILE_COLUMNS] __attribute__((aligned(64)));
                    copy_tiles(m, type, row, c, tiles);
                    __asm__ volatile("" ::: "memory"); // loads of tiles do not tell compilers what they read
                    _tile_loadd(2, tiles[0], sizeof tiles[0][0]);
                    _tile_loadd(3, tiles[1], sizeof tiles[1][0]);
                }
                _tile_loadd(4, pairs + c * GROUP, 64);
                _tile_loadd(5, pairs + (c + TILE_COLUMNS) * GROUP, 64);
                _tile_dpbf16ps(0, 2, 4); // two sums, since a product has to wait for the one before it
                _tile_dpbf16ps(1, 3, 5);
            }
            float sums[2][GROUP][GROUP];
            _tile_stored(0, sums[0], sizeof sums[0][0]);
            _tile_stored(1, sums[1], sizeof sums[1][0]);
            for (int r = 0; r < GROUP; r++)
                for (int b = 0; b < GROUP; b++) sums[0][r][b] += sums[1][r][b];
            write_sums(m, type, row, first, batch, sums[0], y);
        }
    }
}
#endif

// y (B, rows) = x (B, columns) times the matrix turned round, plus the bias. Every thread takes a stretch of rows, and goes on
// without waiting for the others.
static void multiply(const matrix *m, int type, const float *x, int batch, const void *arranged, float *y) {
    const enum way way = way_of(type, batch);
#ifdef HAS_TILES
    if (way == TILES) {
        multiply_with_tiles(m, type, arranged, batch, y);
        return;
    }
#endif
    if (way == GROUPS) {
        if (type == FP32) multiply_groups(m, FP32, arranged, batch, y);
        else if (type == BF16) multiply_groups(m, BF16, arranged, batch, y);
        else multiply_groups(m, INT8, arranged, batch, y);
    } else if (type == FP32) multiply_few(m, FP32, x, batch, y);
    else if (type == BF16) multiply_few(m, BF16, x, batch, y);
    else multiply_few(m, INT8, x, batch, y);
}
