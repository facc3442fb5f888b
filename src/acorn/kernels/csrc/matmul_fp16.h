// c = a b of fp32 matrices, multiplied and added up in fp16, for CPUs that do twice as many numbers of 16 bits at once.
//
// fp16 has 11 significant bits, more than bf16's 8, but ends at 65,504. So each panel of a matrix is scaled by the
// power of two that brings its largest element under 16: 128 products add up to no more than 32,768. Those sums, one
// for each slice, are in fp16; they are added up in fp32. The arrangement is that of Goto and van de Geijn 2008:
// panels of both matrices are packed in the order in which they are read, so that b's stay in the first cache and a's
// in the second.

#pragma once
#include "simd.h"
#include <stdlib.h>

#define LANES (2 * WIDTH)

enum {
    PANEL_ROWS = 12, // of c at a time: with two vectors each, what 32 registers hold
    PANEL_COLUMNS = 2 * LANES,
    SLICE_DEPTH = 128, // products of a sum in fp16; 64 would be a tenth slower, and a quarter more exact
    BLOCK_PANELS = 16, // of a, packed at a time
    BLOCK_DEPTH = 4 * SLICE_DEPTH,
    BLOCK_COLUMNS = 2048,
    // Of a's packed columns: an odd number of lines, or few sets of a cache hold them.
    COLUMN_PITCH = BLOCK_PANELS * PANEL_ROWS + 16,
};
static const float LARGEST_SCALED = 16; // of a scaled panel

typedef _Float16 f16x __attribute__((vector_size(4 * WIDTH), aligned(2)));
typedef uint16_t u16x_wide __attribute__((vector_size(4 * WIDTH), aligned(2)));
typedef _Float16 f16x_half __attribute__((vector_size(2 * WIDTH), aligned(2)));

// A matrix as it lies in memory: element (i, j) at i * row + j * column, one of which is 1.
typedef struct {
    const float *values;
    long row, column;
} strided;

static inline f32x size_of_each(f32x x) { return (f32x)((u32x)x & 0x7fffffff); }

// The power of two that brings `most` under LARGEST_SCALED; what takes it back is written to `back`. What is not finite
// stays that.
static float scale_for(float most, float *back) {
    int exponent = 0;
    if (most > 0 && most < INFINITY) frexpf(most / LARGEST_SCALED, &exponent);
    // So that scales are floats, and two of them times each other, too; of larger numbers than 1e20 comes infinity.
    exponent = exponent < -120 ? -120 : exponent > 63 ? 63 : exponent;
    *back = ldexpf(1, exponent);
    return ldexpf(1, -exponent);
}

static inline __attribute__((always_inline)) u16x to_fp16(f32x x) {
    return (u16x)__builtin_convertvector(x, f16x_half);
}

// Each number twice in 32 bits, which a CPU can spread over a vector as it loads them; 16 it cannot.
static inline __attribute__((always_inline)) u32x twice(f32x x) {
    const u32x wide = widen(to_fp16(x));
    return wide | wide << 16;
}

static inline __attribute__((always_inline)) f16x load_f16x(const uint16_t *from) {
    return (f16x)*(const u16x_wide *)from;
}

static inline __attribute__((always_inline)) float largest_size(const float *from, long row, long rows, long columns) {
    f32x most = {0};
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j += WIDTH) {
            __builtin_prefetch(from + (i + 4) * row + j);
            most = larger(size_of_each(load_some(from, i * row + j, columns - j, FP32)), most);
        }
    return largest_of(most);
}

// PANEL_ROWS rows of a, of which `rows` are there, and `depth` columns, as they lie.
static void pack_rows(const float *a, long row, long rows, long depth, uint32_t *to, float *back) {
    const float scale = scale_for(largest_size(a, row, rows, depth), back);
    for (long i = 0; i < rows; i++)
        for (long k = 0; k < depth; k += WIDTH) // past the last: over numbers that nobody reads
            *(u32x *)(to + i * SLICE_DEPTH + k) = twice(load_some(a, i * row + k, depth - k, FP32) * scale);
    for (long i = rows; i < PANEL_ROWS; i++) memset(to + i * SLICE_DEPTH, 0, depth * sizeof *to);
}

// The same for `rows` rows, several panels, of a matrix whose columns lie in one piece; packed, they do, too.
static void pack_columns(const float *a, long column, long rows, long depth, uint32_t *to, float *backs, long step) {
    float most[COLUMN_PITCH] = {0}, scales[COLUMN_PITCH] = {0};
    for (long k = 0; k < depth; k++)
        for (long i = 0; i < rows; i += WIDTH) {
            __builtin_prefetch(a + (k + 4) * column + i);
            const f32x size = size_of_each(load_some(a, k * column + i, rows - i, FP32));
            store(most, i, larger(size, load(most, i, FP32)), FP32);
        }
    for (long i = 0; i < rows; i += PANEL_ROWS) {
        float largest = 0;
        for (long j = i; j < i + PANEL_ROWS; j++) largest = most[j] > largest ? most[j] : largest;
        const float scale = scale_for(largest, backs + i / PANEL_ROWS * step);
        for (long j = i; j < i + PANEL_ROWS; j++) scales[j] = scale;
    }
    const long padded = (rows + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS;
    for (long k = 0; k < depth; k++)
        for (long i = 0; i < padded; i += WIDTH) {
            const f32x values = i < rows ? load_some(a, k * column + i, rows - i, FP32) : splat(0);
            *(u32x *)(to + k * COLUMN_PITCH + i) = twice(values * load(scales, i, FP32));
        }
}

// PANEL_COLUMNS columns of b, of which `columns` are there, and `depth` rows: row after row.
static void pack_right(strided b, long columns, long depth, uint16_t *to, float *back) {
    const int transposed = b.column != 1;
    const long apart = transposed ? b.column : b.row;
    const float scale = scale_for(
        transposed ? largest_size(b.values, apart, columns, depth) : largest_size(b.values, apart, depth, columns), back
    );
    if (columns < PANEL_COLUMNS) memset(to, 0, depth * PANEL_COLUMNS * sizeof *to);
    for (long j = 0; transposed && j < columns; j++) {
        u16x column[SLICE_DEPTH / WIDTH];
        for (long k = 0; k < depth; k += WIDTH)
            column[k / WIDTH] = to_fp16(load_some(b.values, j * apart + k, depth - k, FP32) * scale);
        for (long k = 0; k < depth; k++) to[k * PANEL_COLUMNS + j] = ((const uint16_t *)column)[k];
    }
    for (long k = 0; !transposed && k < depth; k++)
        for (long j = 0; j < columns; j += WIDTH) {
            const f32x some = load_some(b.values, k * apart + j, columns - j, FP32);
            *(u16x *)(to + k * PANEL_COLUMNS + j) = to_fp16(some * scale);
        }
}

// A half of a vector of sums, as floats. Intel's own names for it, since GCC takes the upper half apart.
static inline __attribute__((always_inline)) f32x half_of(f16x sums, int upper) {
#if defined(__AVX512FP16__)
    const __m512i bits = (__m512i)sums;
    return (f32x)_mm512_cvtph_ps(upper ? _mm512_extracti64x4_epi64(bits, 1) : _mm512_castsi512_si256(bits));
#else
    f16x_half parts[2];
    memcpy(parts, &sums, sizeof sums);
    return __builtin_convertvector(parts[upper], f32x);
#endif
}

// LANES elements of c, from their sums in fp16.
static inline __attribute__((always_inline)) void bring_back(f16x sums, float scale, float *c, int add) {
    for (int upper = 0; upper < 2; upper++) {
        f32x value = half_of(sums, upper) * scale;
        if (add) value += load(c, upper * WIDTH, FP32);
        store(c, upper * WIDTH, value, FP32);
    }
}

// c (PANEL_ROWS, PANEL_COLUMNS) = a b * scale, or that added to it. a: element (i, k) at i * row + k * column, twice.
static inline __attribute__((always_inline)) void matmul_panels(
    const uint32_t *a, long row, long column, const uint16_t *b, long depth, float scale, float *c, long c_row, int add
) {
    f16x sums[PANEL_ROWS][2] = {0};
    for (long k = 0; k < depth; k++) {
        const f16x first = load_f16x(b + k * PANEL_COLUMNS), second = load_f16x(b + k * PANEL_COLUMNS + LANES);
#pragma GCC unroll 12
        for (int i = 0; i < PANEL_ROWS; i++) {
            const f16x number = (f16x)((u32x){0} + a[i * row + k * column]);
            sums[i][0] += number * first;
            sums[i][1] += number * second;
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < PANEL_ROWS; i++) {
        bring_back(sums[i][0], scale, c + i * c_row, add);
        bring_back(sums[i][1], scale, c + i * c_row + LANES, add);
    }
}

// A function for each order of a's numbers and way of adding, or GCC makes one loop with variable strides of them.
#define DEFINE_TILE(name, row, column, add)                                                                           \
    static __attribute__((noinline)) void name(                                                                       \
        const uint32_t *a, const uint16_t *b, long depth, float scale, float *c, long c_row                           \
    ) {                                                                                                               \
        matmul_panels(a, row, column, b, depth, scale, c, c_row, add);                                              \
    }
DEFINE_TILE(tile_of_rows, SLICE_DEPTH, 1, 0)
DEFINE_TILE(add_tile_of_rows, SLICE_DEPTH, 1, 1)
DEFINE_TILE(tile_of_columns, 1, COLUMN_PITCH, 0)
DEFINE_TILE(add_tile_of_columns, 1, COLUMN_PITCH, 1)

static void matmul_tile(
    const uint32_t *a, int transposed, const uint16_t *b, long depth, float scale, float *c, long c_row, int add
) {
    if (transposed) (add ? add_tile_of_columns : tile_of_columns)(a, b, depth, scale, c, c_row);
    else (add ? add_tile_of_rows : tile_of_rows)(a, b, depth, scale, c, c_row);
}

// The same where c has but `rows` and `columns`.
static void matmul_edge(
    const uint32_t *a, int transposed, const uint16_t *b, long depth, float scale, float *c, long c_row, long rows,
    long columns, int add
) {
    float tile[PANEL_ROWS * PANEL_COLUMNS];
    matmul_tile(a, transposed, b, depth, scale, tile, PANEL_COLUMNS, 0);
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j++)
            c[i * c_row + j] = (add ? c[i * c_row + j] : 0) + tile[i * PANEL_COLUMNS + j];
}

// What becomes of each number of a result once it is whole.
typedef struct {
    const float *bias; // of each column, added; NULL: none
    int relu; // then negatives become 0
} epilogue;
static const epilogue NO_EPILOGUE = {0};

static void apply_epilogue(epilogue then, float *c, long c_row, long rows, long columns) {
    if (!then.bias && !then.relu) return;
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j += WIDTH) {
            f32x value = load_some(c, i * c_row + j, columns - j, FP32);
            if (then.bias) value += load_some(then.bias, j, columns - j, FP32);
            const i32x negative = value < 0; // not NaN, which stays
            if (then.relu) value = (f32x)(~negative & (i32x)value);
            store_some(c, i * c_row + j, columns - j, value, FP32);
        }
}

// Panels of b as they are packed: element (k, j) of a panel's slice at k * PANEL_COLUMNS + j, slice after slice of a
// panel, panel after panel.
typedef struct {
    uint16_t *values;
    float *backs; // of each slice
    long slices; // of a panel
} packed;

enum { SLICE_VALUES = SLICE_DEPTH * PANEL_COLUMNS };

// The part of it that begins at (k, n) of b.
static inline packed packed_from(packed b, long k, long n) {
    const long at = n / PANEL_COLUMNS * b.slices + k / SLICE_DEPTH;
    return (packed){b.values + at * SLICE_VALUES, b.backs + at, b.slices};
}

// Thread `me` of a team's share of packing b (K, N), in the order in which it lies in memory.
static void pack(strided b, long N, long K, packed to, int me, int team) {
    const long panels = (N + PANEL_COLUMNS - 1) / PANEL_COLUMNS, slices = (K + SLICE_DEPTH - 1) / SLICE_DEPTH;
    for (long i = me; i < panels * slices; i += team) {
        const long n = (b.column == 1 ? i % panels : i / slices) * PANEL_COLUMNS;
        const long k = (b.column == 1 ? i / panels : i % slices) * SLICE_DEPTH;
        const strided part = {b.values + k * b.row + n * b.column, b.row, b.column};
        const packed place = packed_from(to, k, n);
        pack_right(part, least(PANEL_COLUMNS, N - n), least(SLICE_DEPTH, K - k), place.values, place.backs);
    }
}

enum {
    LEFT_SIZE = COLUMN_PITCH * BLOCK_DEPTH, // of a packed block of a, in either order
    RIGHT_SLICES = BLOCK_COLUMNS / PANEL_COLUMNS * (BLOCK_DEPTH / SLICE_DEPTH),
};

// A block of a, of `rows` rows, times what is packed of b. left: workspace. c: where its first number goes.
static void matmul_block(
    strided a, long rows, packed b, uint32_t *left, long depth, float *c, long c_row, long columns, int add,
    epilogue then
) {
    const int transposed = a.column != 1;
    const long slices = (depth + SLICE_DEPTH - 1) / SLICE_DEPTH, panels = (rows + PANEL_ROWS - 1) / PANEL_ROWS;
    float backs[BLOCK_PANELS * (BLOCK_DEPTH / SLICE_DEPTH)];
    for (long slice = 0; transposed && slice < slices; slice++)
        pack_columns(
            a.values + slice * SLICE_DEPTH * a.column, a.column, rows, least(SLICE_DEPTH, depth - slice * SLICE_DEPTH),
            left + slice * SLICE_DEPTH * COLUMN_PITCH, backs + slice, slices
        );
    for (long at = 0; !transposed && at < panels * slices; at++) {
        const long i = at / slices * PANEL_ROWS, k = at % slices * SLICE_DEPTH;
        pack_rows(
            a.values + i * a.row + k, a.row, least(PANEL_ROWS, rows - i), least(SLICE_DEPTH, depth - k),
            left + at * PANEL_ROWS * SLICE_DEPTH, backs + at
        );
    }
    for (long j = 0; j < columns; j += PANEL_COLUMNS) {
        const long in_columns = least(PANEL_COLUMNS, columns - j);
        for (long slice = 0; slice < slices; slice++) {
            const packed right = packed_from(b, slice * SLICE_DEPTH, j);
            const long deep = least(SLICE_DEPTH, depth - slice * SLICE_DEPTH);
            for (long panel = 0; panel < panels; panel++) {
                const long i = panel * PANEL_ROWS, in_rows = least(PANEL_ROWS, rows - i);
                const uint32_t *from = left + (
                    transposed ? slice * SLICE_DEPTH * COLUMN_PITCH + i
                               : (panel * slices + slice) * PANEL_ROWS * SLICE_DEPTH
                );
                const float scale = backs[panel * slices + slice] * *right.backs;
                float *to = c + i * c_row + j;
                const int adds = add || slice;
                if (in_rows == PANEL_ROWS && in_columns == PANEL_COLUMNS)
                    matmul_tile(from, transposed, right.values, deep, scale, to, c_row, adds);
                else matmul_edge(from, transposed, right.values, deep, scale, to, c_row, in_rows, in_columns, adds);
            }
        }
        const epilogue here = {then.bias ? then.bias + j : NULL, then.relu};
        apply_epilogue(here, c + j, c_row, rows, in_columns); // while they are in the cache
    }
}

// Thread `me` of a team's share of c (M, N) = a (M, K) b (K, N), b packed, N and K of at most a block.
static void matmul_rows(
    strided a, packed b, uint32_t *left, float *c, long c_row, long M, long N, long K, int add, epilogue then, int me,
    int team
) {
    const long panels = (M + PANEL_ROWS - 1) / PANEL_ROWS;
    long blocks = (panels + BLOCK_PANELS - 1) / BLOCK_PANELS;
    blocks = least(panels, (blocks + team - 1) / team * team); // as many for each thread
    for (long block = me; block < blocks; block += team) {
        const long i = block * panels / blocks * PANEL_ROWS, end = least(M, (block + 1) * panels / blocks * PANEL_ROWS);
        const strided part = {a.values + i * a.row, a.row, a.column};
        matmul_block(part, end - i, b, left, K, c + i * c_row, c_row, N, add, then);
    }
}

// What one or several threads need to multiply.
typedef struct {
    packed right; // a block of b, for all of them
    uint32_t *left; // a block of a, for each
} matmul_workspace;

// Thread `me` of a team's share of c (M, N) = a (M, K) b (K, N). All of the team are here at once.
static void matmul_share(
    strided a, strided b, float *c, long c_row, long M, long N, long K, int add, epilogue then,
    const matmul_workspace *work, int me, int team
) {
    for (long n = 0; n < N; n += BLOCK_COLUMNS)
        for (long k = 0; k < K; k += BLOCK_DEPTH) {
            const long columns = least(BLOCK_COLUMNS, N - n), depth = least(BLOCK_DEPTH, K - k);
            const strided of_a = {a.values + k * a.column, a.row, a.column};
            const strided of_b = {b.values + k * b.row + n * b.column, b.row, b.column};
            const epilogue now = {then.bias ? then.bias + n : NULL, then.relu};
            pack(of_b, columns, depth, work->right, me, team);
            if (team > 1) {
#pragma omp barrier
            }
            matmul_rows(
                of_a, work->right, work->left, c + n, c_row, M, columns, depth, add || k,
                k + depth == K ? now : NO_EPILOGUE, me, team
            );
            if (team > 1) { // before the others pack anew
#pragma omp barrier
            }
        }
}

// Of one thread.
enum { WORKSPACE_BYTES = (LEFT_SIZE + RIGHT_SLICES) * 4 + RIGHT_SLICES * SLICE_VALUES * 2 };

// The workspace of a thread that multiplies by itself, in WORKSPACE_BYTES.
static inline matmul_workspace matmul_workspace_in(char *memory) {
    uint16_t *right = (uint16_t *)memory;
    float *backs = (float *)(right + RIGHT_SLICES * SLICE_VALUES);
    return (matmul_workspace){{right, backs, BLOCK_DEPTH / SLICE_DEPTH}, (uint32_t *)(backs + RIGHT_SLICES)};
}
