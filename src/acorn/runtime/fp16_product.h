// c = a b of fp32 matrices, multiplied and added up in fp16, for CPUs that do twice as many numbers of 16 bits at once.
//
// fp16 has 11 significant bits, more than bf16's 8, but ends at 65,504. So each panel of a matrix is scaled by the
// power of two that brings its largest number under 16: 128 products add up to no more than 32,768. Those sums, DEPTH
// long, are in fp16; they are added up in fp32. The arrangement is that of Goto and van de Geijn 2008: panels of both
// matrices are packed in the order in which they are read, so that b's stay in the first cache and a's in the second.

#pragma once
#include "vectors.h"
#include <stdlib.h>

#define LANES (2 * WIDTH)

enum {
    ROWS = 12, // of c at a time: with two vectors each, what 32 registers hold
    COLUMNS = 2 * LANES,
    DEPTH = 128, // products of a sum in fp16; 64 would be a tenth slower, and a quarter more exact
    BLOCK_PANELS = 16, // of a, packed at a time
    BLOCK_DEPTH = 4 * DEPTH,
    BLOCK_COLUMNS = 2048,
    PITCH = BLOCK_PANELS * ROWS + 16, // of a's packed columns: an odd number of lines, or few sets of a cache hold them
};
static const float LARGEST = 16; // of a scaled panel

typedef _Float16 fp16s __attribute__((vector_size(4 * WIDTH), aligned(2)));
typedef uint16_t many_halves __attribute__((vector_size(4 * WIDTH), aligned(2)));
typedef _Float16 narrow_floats __attribute__((vector_size(2 * WIDTH), aligned(2)));

// A matrix as it lies in memory: number (i, j) at i * row + j * column, one of which is 1.
typedef struct {
    const float *numbers;
    long row, column;
} matrix;

static inline floats size_of_each(floats x) { return (floats)((words)x & 0x7fffffff); }

// The power of two that brings `most` under LARGEST; what takes it back is written to `back`. What is not finite stays
// that.
static float scale_for(float most, float *back) {
    int exponent = 0;
    if (most > 0 && most < INFINITY) frexpf(most / LARGEST, &exponent);
    // So that scales are floats, and two of them times each other, too; of larger numbers than 1e20 comes infinity.
    exponent = exponent < -120 ? -120 : exponent > 63 ? 63 : exponent;
    *back = ldexpf(1, exponent);
    return ldexpf(1, -exponent);
}

static inline __attribute__((always_inline)) halves to_fp16(floats x) {
    return (halves)__builtin_convertvector(x, narrow_floats);
}

// Each number twice in 32 bits, which a CPU can spread over a vector as it loads them; 16 it cannot.
static inline __attribute__((always_inline)) words twice(floats x) {
    const words wide = widened(to_fp16(x));
    return wide | wide << 16;
}

static inline __attribute__((always_inline)) fp16s load_fp16s(const uint16_t *from) {
    return (fp16s)*(const many_halves *)from;
}

static inline __attribute__((always_inline)) float largest_size(const float *from, long row, long rows, long columns) {
    floats most = {0};
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j += WIDTH) {
            __builtin_prefetch(from + (i + 4) * row + j);
            most = larger(size_of_each(load_some(from, i * row + j, columns - j, FP32)), most);
        }
    return largest_of(most);
}

// ROWS rows of a, of which `rows` are there, and `depth` columns, as they lie.
static void pack_rows(const float *a, long row, long rows, long depth, uint32_t *to, float *back) {
    const float scale = scale_for(largest_size(a, row, rows, depth), back);
    for (long i = 0; i < rows; i++)
        for (long k = 0; k < depth; k += WIDTH) // past the last: over numbers that nobody reads
            *(words *)(to + i * DEPTH + k) = twice(load_some(a, i * row + k, depth - k, FP32) * scale);
    for (long i = rows; i < ROWS; i++) memset(to + i * DEPTH, 0, depth * sizeof *to);
}

// The same for `rows` rows, several panels, of a matrix whose columns lie in one piece; packed, they do, too.
static void pack_columns(const float *a, long column, long rows, long depth, uint32_t *to, float *backs, long step) {
    float most[PITCH] = {0}, scales[PITCH] = {0};
    for (long k = 0; k < depth; k++)
        for (long i = 0; i < rows; i += WIDTH) {
            __builtin_prefetch(a + (k + 4) * column + i);
            const floats size = size_of_each(load_some(a, k * column + i, rows - i, FP32));
            store(most, i, larger(size, load(most, i, FP32)), FP32);
        }
    for (long i = 0; i < rows; i += ROWS) {
        float largest = 0;
        for (long j = i; j < i + ROWS; j++) largest = most[j] > largest ? most[j] : largest;
        const float scale = scale_for(largest, backs + i / ROWS * step);
        for (long j = i; j < i + ROWS; j++) scales[j] = scale;
    }
    const long padded = (rows + ROWS - 1) / ROWS * ROWS;
    for (long k = 0; k < depth; k++)
        for (long i = 0; i < padded; i += WIDTH) {
            const floats numbers = i < rows ? load_some(a, k * column + i, rows - i, FP32) : all(0);
            *(words *)(to + k * PITCH + i) = twice(numbers * load(scales, i, FP32));
        }
}

// COLUMNS columns of b, of which `columns` are there, and `depth` rows: row after row.
static void pack_right(matrix b, long columns, long depth, uint16_t *to, float *back) {
    const int turned = b.column != 1;
    const long apart = turned ? b.column : b.row;
    const float scale = scale_for(
        turned ? largest_size(b.numbers, apart, columns, depth) : largest_size(b.numbers, apart, depth, columns), back
    );
    if (columns < COLUMNS) memset(to, 0, depth * COLUMNS * sizeof *to);
    for (long j = 0; turned && j < columns; j++) {
        halves column[DEPTH / WIDTH];
        for (long k = 0; k < depth; k += WIDTH)
            column[k / WIDTH] = to_fp16(load_some(b.numbers, j * apart + k, depth - k, FP32) * scale);
        for (long k = 0; k < depth; k++) to[k * COLUMNS + j] = ((const uint16_t *)column)[k];
    }
    for (long k = 0; !turned && k < depth; k++)
        for (long j = 0; j < columns; j += WIDTH)
            *(halves *)(to + k * COLUMNS + j) = to_fp16(load_some(b.numbers, k * apart + j, columns - j, FP32) * scale);
}

// A half of a vector of sums, as floats. Intel's own names for it, since GCC takes the upper half apart.
static inline __attribute__((always_inline)) floats half_of(fp16s sums, int upper) {
#if defined(__AVX512FP16__)
    const __m512i bits = (__m512i)sums;
    return (floats)_mm512_cvtph_ps(upper ? _mm512_extracti64x4_epi64(bits, 1) : _mm512_castsi512_si256(bits));
#else
    narrow_floats parts[2];
    memcpy(parts, &sums, sizeof sums);
    return __builtin_convertvector(parts[upper], floats);
#endif
}

// LANES numbers of c, from their sums in fp16.
static inline __attribute__((always_inline)) void bring_back(fp16s sums, float scale, float *c, int add) {
    for (int upper = 0; upper < 2; upper++) {
        floats value = half_of(sums, upper) * scale;
        if (add) value += load(c, upper * WIDTH, FP32);
        store(c, upper * WIDTH, value, FP32);
    }
}

// c (ROWS, COLUMNS) = a b * scale, or that added to it. a: number (i, k) at i * row + k * column, twice.
static inline __attribute__((always_inline)) void multiply_panels(
    const uint32_t *a, long row, long column, const uint16_t *b, long depth, float scale, float *c, long c_row, int add
) {
    fp16s sums[ROWS][2] = {0};
    for (long k = 0; k < depth; k++) {
        const fp16s first = load_fp16s(b + k * COLUMNS), second = load_fp16s(b + k * COLUMNS + LANES);
#pragma GCC unroll 12
        for (int i = 0; i < ROWS; i++) {
            const fp16s number = (fp16s)((words){0} + a[i * row + k * column]);
            sums[i][0] += number * first;
            sums[i][1] += number * second;
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; i++) {
        bring_back(sums[i][0], scale, c + i * c_row, add);
        bring_back(sums[i][1], scale, c + i * c_row + LANES, add);
    }
}

// A function for each order of a's numbers and way of adding, or GCC makes one loop with variable strides of them.
#define TILE(name, row, column, add)                                                                                  \
    static __attribute__((noinline)) void name(                                                                       \
        const uint32_t *a, const uint16_t *b, long depth, float scale, float *c, long c_row                           \
    ) {                                                                                                               \
        multiply_panels(a, row, column, b, depth, scale, c, c_row, add);                                              \
    }
TILE(tile_of_rows, DEPTH, 1, 0)
TILE(add_tile_of_rows, DEPTH, 1, 1)
TILE(tile_of_columns, 1, PITCH, 0)
TILE(add_tile_of_columns, 1, PITCH, 1)

static void multiply_tile(
    const uint32_t *a, int turned, const uint16_t *b, long depth, float scale, float *c, long c_row, int add
) {
    if (turned) (add ? add_tile_of_columns : tile_of_columns)(a, b, depth, scale, c, c_row);
    else (add ? add_tile_of_rows : tile_of_rows)(a, b, depth, scale, c, c_row);
}

// The same where c has but `rows` and `columns`.
static void multiply_edge(
    const uint32_t *a, int turned, const uint16_t *b, long depth, float scale, float *c, long c_row, long rows,
    long columns, int add
) {
    float tile[ROWS * COLUMNS];
    multiply_tile(a, turned, b, depth, scale, tile, COLUMNS, 0);
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j++)
            c[i * c_row + j] = (add ? c[i * c_row + j] : 0) + tile[i * COLUMNS + j];
}

// What becomes of each number of a result once it is whole.
typedef struct {
    const float *bias; // of each column, added; NULL: none
    int relu; // then negatives become 0
} finish;
static const finish NO_FINISH = {0};

static void finish_columns(finish then, float *c, long c_row, long rows, long columns) {
    if (!then.bias && !then.relu) return;
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j += WIDTH) {
            floats value = load_some(c, i * c_row + j, columns - j, FP32);
            if (then.bias) value += load_some(then.bias, j, columns - j, FP32);
            const integers negative = value < 0; // not NaN, which stays
            if (then.relu) value = (floats)(~negative & (integers)value);
            store_some(c, i * c_row + j, columns - j, value, FP32);
        }
}

// Panels of b as they are packed: number (k, j) of a panel's slice at k * COLUMNS + j, slice after slice of a panel,
// panel after panel.
typedef struct {
    uint16_t *numbers;
    float *backs; // of each slice
    long slices; // of a panel
} packed;

enum { SLICE = DEPTH * COLUMNS };

// The part of it that begins at (k, n) of b.
static inline packed packed_from(packed b, long k, long n) {
    const long at = n / COLUMNS * b.slices + k / DEPTH;
    return (packed){b.numbers + at * SLICE, b.backs + at, b.slices};
}

// Thread `me` of a team's share of packing b (K, N), in the order in which it lies in memory.
static void pack(matrix b, long N, long K, packed to, int me, int team) {
    const long panels = (N + COLUMNS - 1) / COLUMNS, slices = (K + DEPTH - 1) / DEPTH;
    for (long i = me; i < panels * slices; i += team) {
        const long n = (b.column == 1 ? i % panels : i / slices) * COLUMNS;
        const long k = (b.column == 1 ? i / panels : i % slices) * DEPTH;
        const matrix part = {b.numbers + k * b.row + n * b.column, b.row, b.column};
        const packed place = packed_from(to, k, n);
        pack_right(part, least(COLUMNS, N - n), least(DEPTH, K - k), place.numbers, place.backs);
    }
}

enum {
    LEFT_SIZE = PITCH * BLOCK_DEPTH, // of a packed block of a, in either order
    RIGHT_SLICES = BLOCK_COLUMNS / COLUMNS * (BLOCK_DEPTH / DEPTH),
};

// A block of a, of `rows` rows, times what is packed of b. left: room. c: where its first number goes.
static void multiply_block(
    matrix a, long rows, packed b, uint32_t *left, long depth, float *c, long c_row, long columns, int add, finish then
) {
    const int turned = a.column != 1;
    const long slices = (depth + DEPTH - 1) / DEPTH, panels = (rows + ROWS - 1) / ROWS;
    float backs[BLOCK_PANELS * (BLOCK_DEPTH / DEPTH)];
    for (long slice = 0; turned && slice < slices; slice++)
        pack_columns(
            a.numbers + slice * DEPTH * a.column, a.column, rows, least(DEPTH, depth - slice * DEPTH),
            left + slice * DEPTH * PITCH, backs + slice, slices
        );
    for (long at = 0; !turned && at < panels * slices; at++) {
        const long i = at / slices * ROWS, k = at % slices * DEPTH;
        pack_rows(
            a.numbers + i * a.row + k, a.row, least(ROWS, rows - i), least(DEPTH, depth - k), left + at * ROWS * DEPTH,
            backs + at
        );
    }
    for (long j = 0; j < columns; j += COLUMNS) {
        const long in_columns = least(COLUMNS, columns - j);
        for (long slice = 0; slice < slices; slice++) {
            const packed right = packed_from(b, slice * DEPTH, j);
            const long deep = least(DEPTH, depth - slice * DEPTH);
            for (long panel = 0; panel < panels; panel++) {
                const long i = panel * ROWS, in_rows = least(ROWS, rows - i);
                const uint32_t *from =
                    left + (turned ? slice * DEPTH * PITCH + i : (panel * slices + slice) * ROWS * DEPTH);
                const float scale = backs[panel * slices + slice] * *right.backs;
                float *to = c + i * c_row + j;
                const int adds = add || slice;
                if (in_rows == ROWS && in_columns == COLUMNS)
                    multiply_tile(from, turned, right.numbers, deep, scale, to, c_row, adds);
                else multiply_edge(from, turned, right.numbers, deep, scale, to, c_row, in_rows, in_columns, adds);
            }
        }
        const finish here = {then.bias ? then.bias + j : NULL, then.relu};
        finish_columns(here, c + j, c_row, rows, in_columns); // while they are in the cache
    }
}

// Thread `me` of a team's share of c (M, N) = a (M, K) b (K, N), b packed, N and K of at most a block.
static void multiply_rows(
    matrix a, packed b, uint32_t *left, float *c, long c_row, long M, long N, long K, int add, finish then, int me,
    int team
) {
    const long panels = (M + ROWS - 1) / ROWS;
    long blocks = (panels + BLOCK_PANELS - 1) / BLOCK_PANELS;
    blocks = least(panels, (blocks + team - 1) / team * team); // as many for each thread
    for (long block = me; block < blocks; block += team) {
        const long i = block * panels / blocks * ROWS, end = least(M, (block + 1) * panels / blocks * ROWS);
        const matrix part = {a.numbers + i * a.row, a.row, a.column};
        multiply_block(part, end - i, b, left, K, c + i * c_row, c_row, N, add, then);
    }
}

// What one or several threads need to multiply.
typedef struct {
    packed right; // a block of b, for all of them
    uint32_t *left; // a block of a, for each
} rooms;

// Thread `me` of a team's share of c (M, N) = a (M, K) b (K, N). All of the team are here at once.
static void multiply_one(
    matrix a, matrix b, float *c, long c_row, long M, long N, long K, int add, finish then, const rooms *room,
    int me, int team
) {
    for (long n = 0; n < N; n += BLOCK_COLUMNS)
        for (long k = 0; k < K; k += BLOCK_DEPTH) {
            const long columns = least(BLOCK_COLUMNS, N - n), depth = least(BLOCK_DEPTH, K - k);
            const matrix of_a = {a.numbers + k * a.column, a.row, a.column};
            const matrix of_b = {b.numbers + k * b.row + n * b.column, b.row, b.column};
            const finish now = {then.bias ? then.bias + n : NULL, then.relu};
            pack(of_b, columns, depth, room->right, me, team);
            if (team > 1) {
#pragma omp barrier
            }
            multiply_rows(
                of_a, room->right, room->left, c + n, c_row, M, columns, depth, add || k,
                k + depth == K ? now : NO_FINISH, me, team
            );
            if (team > 1) { // before the others pack anew
#pragma omp barrier
            }
        }
}

enum { ROOM = (LEFT_SIZE + RIGHT_SLICES) * 4 + RIGHT_SLICES * SLICE * 2 }; // bytes of one thread's rooms

// The rooms of a thread that multiplies by itself, in ROOM bytes.
static inline rooms rooms_in(char *memory) {
    uint16_t *right = (uint16_t *)memory;
    float *backs = (float *)(right + RIGHT_SLICES * SLICE);
    return (rooms){{right, backs, BLOCK_DEPTH / DEPTH}, (uint32_t *)(backs + RIGHT_SLICES)};
}
