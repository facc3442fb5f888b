// Matmul of fp32 matrices, c = a b, computed in fp16, for CPUs whose vectors hold twice as many fp16 elements as fp32.
//
// fp16 has 11 significant bits, more than bf16's 8, but its largest value is 65,504. So each panel of a matrix is
// scaled by a power of two that brings its largest element below 16: a sum of 128 products is then at most 32,768.
// These sums, one for each slice, are accumulated in fp16; the slices are accumulated in fp32. Blocking follows Goto
// and van de Geijn 2008: panels of both matrices are packed in the order in which they are read, so that panels of b
// stay in the L1 cache and those of a in the L2 cache.

#pragma once
#include "simd.h"
#include <stdlib.h>

#define F16_WIDTH (2 * WIDTH)

enum {
    PANEL_ROWS = 12, // rows of c computed together: two accumulator vectors each fit in 32 registers
    PANEL_COLUMNS = 2 * F16_WIDTH,
    SLICE_DEPTH = 128, // products accumulated in fp16; smaller is more exact and slower (docs/lab-notebook.md)
    BLOCK_PANELS = 16, // panels of a packed at a time
    BLOCK_DEPTH = 4 * SLICE_DEPTH,
    BLOCK_COLUMNS = 2048,
    // Of a's packed columns: an odd a_value of lines, or few sets of a cache hold them.
    COLUMN_PITCH = BLOCK_PANELS * PANEL_ROWS + 16,
};
static const float MAX_SCALED = 16; // upper limit of a scaled panel's elements

typedef _Float16 f16x __attribute__((vector_size(4 * WIDTH), aligned(2)));
typedef uint16_t u16x_wide __attribute__((vector_size(4 * WIDTH), aligned(2)));
typedef _Float16 f16x_half __attribute__((vector_size(2 * WIDTH), aligned(2)));

// A matrix in memory: element (i, j) is at values[i * row + j * column]; one of the two strides is 1.
typedef struct {
    const float *values;
    long row, column;
} strided;

static inline f32x abs_f32x(f32x x) { return (f32x)((u32x)x & 0x7fffffff); }

// The power of two that scales `maximum` to below MAX_SCALED. Infinity and NaN keep the scale 1.
static float fp16_scale(float maximum, float *inverse_scale) {
    int exponent = 0;
    if (maximum > 0 && maximum < INFINITY) frexpf(maximum / MAX_SCALED, &exponent);
    // Limits that keep a scale, and the product of two, within fp32's range; elements above 1e20 become infinite.
    exponent = exponent < -120 ? -120 : exponent > 63 ? 63 : exponent;
    *inverse_scale = ldexpf(1, exponent);
    return ldexpf(1, -exponent);
}

static inline __attribute__((always_inline)) u16x to_fp16(f32x x) {
    return (u16x)__builtin_convertvector(x, f16x_half);
}

// Each element twice in 32 bits: CPUs broadcast 32 bits from memory to a vector in one instruction, but not 16.
static inline __attribute__((always_inline)) u32x duplicate_fp16(f32x x) {
    const u32x wide = widen(to_fp16(x));
    return wide | wide << 16;
}

static inline __attribute__((always_inline)) f16x load_f16x(const uint16_t *from) {
    return (f16x)*(const u16x_wide *)from;
}

static inline __attribute__((always_inline)) float max_abs(const float *from, long row, long rows, long columns) {
    f32x maxima = {0};
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j += WIDTH) {
            __builtin_prefetch(from + (i + 4) * row + j);
            maxima = max_f32x(abs_f32x(load_partial(from, i * row + j, columns - j, FP32)), maxima);
        }
    return reduce_max(maxima);
}

// Packs a panel of a: `rows` <= PANEL_ROWS rows (zeros follow) and `depth` columns, row after row.
static void pack_rows(const float *a, long row, long rows, long depth, uint32_t *to, float *inverse_scale) {
    const float scale = fp16_scale(max_abs(a, row, rows, depth), inverse_scale);
    for (long i = 0; i < rows; i++)
        for (long k = 0; k < depth; k += WIDTH) // may write past `depth`, where nothing is read
            *(u32x *)(to + i * SLICE_DEPTH + k) = duplicate_fp16(load_partial(a, i * row + k, depth - k, FP32) * scale);
    for (long i = rows; i < PANEL_ROWS; i++) memset(to + i * SLICE_DEPTH, 0, depth * sizeof *to);
}

// The same for several panels, `rows` rows in all, of a matrix with contiguous columns; packed column after column. The
// scale of panel p is written to inverse_scales[p * step].
static void pack_columns(
    const float *a, long column, long rows, long depth, uint32_t *to, float *inverse_scales, long step
) {
    float maxima[COLUMN_PITCH] = {0}, scales[COLUMN_PITCH] = {0};
    for (long k = 0; k < depth; k++)
        for (long i = 0; i < rows; i += WIDTH) {
            __builtin_prefetch(a + (k + 4) * column + i);
            const f32x magnitude = abs_f32x(load_partial(a, k * column + i, rows - i, FP32));
            store(maxima, i, max_f32x(magnitude, load(maxima, i, FP32)), FP32);
        }
    for (long i = 0; i < rows; i += PANEL_ROWS) {
        float largest = 0;
        for (long j = i; j < i + PANEL_ROWS; j++) largest = maxima[j] > largest ? maxima[j] : largest;
        const float scale = fp16_scale(largest, inverse_scales + i / PANEL_ROWS * step);
        for (long j = i; j < i + PANEL_ROWS; j++) scales[j] = scale;
    }
    const long padded = (rows + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS;
    for (long k = 0; k < depth; k++)
        for (long i = 0; i < padded; i += WIDTH) {
            const f32x values = i < rows ? load_partial(a, k * column + i, rows - i, FP32) : broadcast(0);
            *(u32x *)(to + k * COLUMN_PITCH + i) = duplicate_fp16(values * load(scales, i, FP32));
        }
}

// Packs a slice of a panel of b: `columns` <= PANEL_COLUMNS columns (zeros follow) and `depth` rows, row after row.
static void pack_b_slice(strided b, long columns, long depth, uint16_t *to, float *inverse_scale) {
    const int transposed = b.column != 1;
    const long stride = transposed ? b.column : b.row;
    const float maximum =
        transposed ? max_abs(b.values, stride, columns, depth) : max_abs(b.values, stride, depth, columns);
    const float scale = fp16_scale(maximum, inverse_scale);
    if (columns < PANEL_COLUMNS) memset(to, 0, depth * PANEL_COLUMNS * sizeof *to);
    for (long j = 0; transposed && j < columns; j++) {
        u16x column[SLICE_DEPTH / WIDTH];
        for (long k = 0; k < depth; k += WIDTH)
            column[k / WIDTH] = to_fp16(load_partial(b.values, j * stride + k, depth - k, FP32) * scale);
        for (long k = 0; k < depth; k++) to[k * PANEL_COLUMNS + j] = ((const uint16_t *)column)[k];
    }
    for (long k = 0; !transposed && k < depth; k++)
        for (long j = 0; j < columns; j += WIDTH) {
            const f32x values = load_partial(b.values, k * stride + j, columns - j, FP32);
            *(u16x *)(to + k * PANEL_COLUMNS + j) = to_fp16(values * scale);
        }
}

// The lower or upper half of a vector, converted to fp32. With Intel's intrinsics, because GCC's code for the upper
// half is slow.
static inline __attribute__((always_inline)) f32x half_to_fp32(f16x sums, int upper) {
#if defined(__AVX512FP16__)
    const __m512i bits = (__m512i)sums;
    return (f32x)_mm512_cvtph_ps(upper ? _mm512_extracti64x4_epi64(bits, 1) : _mm512_castsi512_si256(bits));
#else
    f16x_half parts[2];
    memcpy(parts, &sums, sizeof sums);
    return __builtin_convertvector(parts[upper], f32x);
#endif
}

// c = sums * scale, or c += with `add`, for F16_WIDTH elements.
static inline __attribute__((always_inline)) void store_scaled(f16x sums, float scale, float *c, int add) {
    for (int upper = 0; upper < 2; upper++) {
        f32x value = half_to_fp32(sums, upper) * scale;
        if (add) value += load(c, upper * WIDTH, FP32);
        store(c, upper * WIDTH, value, FP32);
    }
}

// c (PANEL_ROWS, PANEL_COLUMNS) = a b * scale, or += with `add`. a: element (i, k) is at i * row + k * column, and
// holds the value twice (see `duplicate_fp16`).
static inline __attribute__((always_inline)) void matmul_panels(
    const uint32_t *a, long row, long column, const uint16_t *b, long depth, float scale, float *c, long c_row, int add
) {
    f16x sums[PANEL_ROWS][2] = {0};
    for (long k = 0; k < depth; k++) {
        const f16x first = load_f16x(b + k * PANEL_COLUMNS), second = load_f16x(b + k * PANEL_COLUMNS + F16_WIDTH);
#pragma GCC unroll 12
        for (int i = 0; i < PANEL_ROWS; i++) {
            const f16x a_value = (f16x)((u32x){0} + a[i * row + k * column]);
            sums[i][0] += a_value * first;
            sums[i][1] += a_value * second;
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < PANEL_ROWS; i++) {
        store_scaled(sums[i][0], scale, c + i * c_row, add);
        store_scaled(sums[i][1], scale, c + i * c_row + F16_WIDTH, add);
    }
}

// One function for each layout of a and each value of `add`; otherwise GCC compiles a single loop with variable
// strides.
#define DEFINE_TILE(name, row, column, add)                                                                           \
    static __attribute__((noinline)) void name(                                                                       \
        const uint32_t *a, const uint16_t *b, long depth, float scale, float *c, long c_row                           \
    ) {                                                                                                               \
        matmul_panels(a, row, column, b, depth, scale, c, c_row, add);                                                \
    }
DEFINE_TILE(tile_from_rows, SLICE_DEPTH, 1, 0)
DEFINE_TILE(add_tile_from_rows, SLICE_DEPTH, 1, 1)
DEFINE_TILE(tile_from_columns, 1, COLUMN_PITCH, 0)
DEFINE_TILE(add_tile_from_columns, 1, COLUMN_PITCH, 1)

static void matmul_tile(
    const uint32_t *a, int transposed, const uint16_t *b, long depth, float scale, float *c, long c_row, int add
) {
    if (transposed) (add ? add_tile_from_columns : tile_from_columns)(a, b, depth, scale, c, c_row);
    else (add ? add_tile_from_rows : tile_from_rows)(a, b, depth, scale, c, c_row);
}

// The same at an edge of c, where only `rows` rows and `columns` columns of the tile exist.
static void matmul_partial_tile(
    const uint32_t *a, int transposed, const uint16_t *b, long depth, float scale, float *c, long c_row, long rows,
    long columns, int add
) {
    float tile[PANEL_ROWS * PANEL_COLUMNS];
    matmul_tile(a, transposed, b, depth, scale, tile, PANEL_COLUMNS, 0);
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j++)
            c[i * c_row + j] = (add ? c[i * c_row + j] : 0) + tile[i * PANEL_COLUMNS + j];
}

// What is applied to each element of a matmul's result.
typedef struct {
    const float *bias; // one element per column, added; NULL: none
    int relu; // whether ReLU follows
} epilogue;
static const epilogue NO_EPILOGUE = {0};

static void apply_epilogue(epilogue epi, float *c, long c_row, long rows, long columns) {
    if (!epi.bias && !epi.relu) return;
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j += WIDTH) {
            f32x value = load_partial(c, i * c_row + j, columns - j, FP32);
            if (epi.bias) value += load_partial(epi.bias, j, columns - j, FP32);
            const i32x negative = value < 0; // false for NaN, which stays NaN
            if (epi.relu) value = (f32x)(~negative & (i32x)value);
            store_partial(c, i * c_row + j, columns - j, value, FP32);
        }
}

// A packed matrix b: panel after panel, and within a panel slice after slice. Element (k, j) of a slice is at
// k * PANEL_COLUMNS + j.
typedef struct {
    uint16_t *values;
    float *inverse_scales; // one per slice
    long slices; // per panel
} packed_matrix;

enum { SLICE_ELEMENTS = SLICE_DEPTH * PANEL_COLUMNS };

// The part of a packed matrix that begins at (k, n) of b.
static inline packed_matrix packed_at(packed_matrix b, long k, long n) {
    const long at = n / PANEL_COLUMNS * b.slices + k / SLICE_DEPTH;
    return (packed_matrix){b.values + at * SLICE_ELEMENTS, b.inverse_scales + at, b.slices};
}

// The part of packing b (K, N) that one of `n_threads` threads does. Slices are packed in memory order.
static void pack_b(strided b, long N, long K, packed_matrix to, int thread, int n_threads) {
    const long panels = (N + PANEL_COLUMNS - 1) / PANEL_COLUMNS, slices = (K + SLICE_DEPTH - 1) / SLICE_DEPTH;
    for (long i = thread; i < panels * slices; i += n_threads) {
        const long n = (b.column == 1 ? i % panels : i / slices) * PANEL_COLUMNS;
        const long k = (b.column == 1 ? i / panels : i % slices) * SLICE_DEPTH;
        const strided part = {b.values + k * b.row + n * b.column, b.row, b.column};
        const packed_matrix target = packed_at(to, k, n);
        const long columns = min_long(PANEL_COLUMNS, N - n), depth = min_long(SLICE_DEPTH, K - k);
        pack_b_slice(part, columns, depth, target.values, target.inverse_scales);
    }
}

enum {
    PACKED_A_ELEMENTS = COLUMN_PITCH * BLOCK_DEPTH, // enough for a packed block of a in either layout
    PACKED_B_SLICES = BLOCK_COLUMNS / PANEL_COLUMNS * (BLOCK_DEPTH / SLICE_DEPTH),
};

// c = a b, or += with `add`, for a block of `rows` rows of a and a packed block of b. packed_a: workspace. c: the first
// element of the result.
static void matmul_row_block(
    strided a, long rows, packed_matrix b, uint32_t *packed_a, long depth, float *c, long c_row, long columns, int add,
    epilogue epi
) {
    const int transposed = a.column != 1;
    const long slices = (depth + SLICE_DEPTH - 1) / SLICE_DEPTH, panels = (rows + PANEL_ROWS - 1) / PANEL_ROWS;
    float inverse_scales[BLOCK_PANELS * (BLOCK_DEPTH / SLICE_DEPTH)];
    for (long slice = 0; transposed && slice < slices; slice++)
        pack_columns(
            a.values + slice * SLICE_DEPTH * a.column, a.column, rows,
            min_long(SLICE_DEPTH, depth - slice * SLICE_DEPTH), packed_a + slice * SLICE_DEPTH * COLUMN_PITCH,
            inverse_scales + slice, slices
        );
    for (long at = 0; !transposed && at < panels * slices; at++) {
        const long i = at / slices * PANEL_ROWS, k = at % slices * SLICE_DEPTH;
        pack_rows(
            a.values + i * a.row + k, a.row, min_long(PANEL_ROWS, rows - i), min_long(SLICE_DEPTH, depth - k),
            packed_a + at * PANEL_ROWS * SLICE_DEPTH, inverse_scales + at
        );
    }
    for (long j = 0; j < columns; j += PANEL_COLUMNS) {
        const long n_columns = min_long(PANEL_COLUMNS, columns - j);
        for (long slice = 0; slice < slices; slice++) {
            const packed_matrix packed_b = packed_at(b, slice * SLICE_DEPTH, j);
            const long slice_depth = min_long(SLICE_DEPTH, depth - slice * SLICE_DEPTH);
            for (long panel = 0; panel < panels; panel++) {
                const long i = panel * PANEL_ROWS, n_rows = min_long(PANEL_ROWS, rows - i);
                const uint32_t *a_panel = packed_a + (
                    transposed ? slice * SLICE_DEPTH * COLUMN_PITCH + i
                               : (panel * slices + slice) * PANEL_ROWS * SLICE_DEPTH
                );
                const float scale = inverse_scales[panel * slices + slice] * *packed_b.inverse_scales;
                float *tile = c + i * c_row + j;
                const int adds = add || slice;
                if (n_rows == PANEL_ROWS && n_columns == PANEL_COLUMNS)
                    matmul_tile(a_panel, transposed, packed_b.values, slice_depth, scale, tile, c_row, adds);
                else
                    matmul_partial_tile(
                        a_panel, transposed, packed_b.values, slice_depth, scale, tile, c_row, n_rows, n_columns, adds
                    );
            }
        }
        const epilogue column_epi = {epi.bias ? epi.bias + j : NULL, epi.relu};
        apply_epilogue(column_epi, c + j, c_row, rows, n_columns); // while the result is in the cache
    }
}

// The part of c (M, N) = a (M, K) b (K, N) that one of `n_threads` threads does; b is packed, and N and K are at most
// one block.
static void matmul_packed_worker(
    strided a, packed_matrix b, uint32_t *packed_a, float *c, long c_row, long M, long N, long K, int add,
    epilogue epi, int thread, int n_threads
) {
    const long panels = (M + PANEL_ROWS - 1) / PANEL_ROWS;
    long blocks = (panels + BLOCK_PANELS - 1) / BLOCK_PANELS;
    blocks = min_long(panels, (blocks + n_threads - 1) / n_threads * n_threads); // equally many for each thread
    for (long block = thread; block < blocks; block += n_threads) {
        const long i = block * panels / blocks * PANEL_ROWS;
        const long end = min_long(M, (block + 1) * panels / blocks * PANEL_ROWS);
        const strided part = {a.values + i * a.row, a.row, a.column};
        matmul_row_block(part, end - i, b, packed_a, K, c + i * c_row, c_row, N, add, epi);
    }
}

// Workspace of a thread.
typedef struct {
    packed_matrix packed_b; // a block of b; threads that work on one matrix share it
    uint32_t *packed_a; // a block of a, of this thread
} matmul_workspace;

// The part of c (M, N) = a (M, K) b (K, N) that one of `n_threads` threads does. All of them call this at the same
// time.
static void matmul_worker(
    strided a, strided b, float *c, long c_row, long M, long N, long K, int add, epilogue epi,
    const matmul_workspace *work, int thread, int n_threads
) {
    for (long n = 0; n < N; n += BLOCK_COLUMNS)
        for (long k = 0; k < K; k += BLOCK_DEPTH) {
            const long columns = min_long(BLOCK_COLUMNS, N - n), depth = min_long(BLOCK_DEPTH, K - k);
            const strided a_block = {a.values + k * a.column, a.row, a.column};
            const strided b_block = {b.values + k * b.row + n * b.column, b.row, b.column};
            const epilogue block_epi = {epi.bias ? epi.bias + n : NULL, epi.relu};
            pack_b(b_block, columns, depth, work->packed_b, thread, n_threads);
            if (n_threads > 1) {
#pragma omp barrier
            }
            matmul_packed_worker(
                a_block, work->packed_b, work->packed_a, c + n, c_row, M, columns, depth, add || k,
                k + depth == K ? block_epi : NO_EPILOGUE, thread, n_threads
            );
            if (n_threads > 1) { // before a thread overwrites the packed b
#pragma omp barrier
            }
        }
}

// Of one thread's workspace.
enum { WORKSPACE_BYTES = (PACKED_A_ELEMENTS + PACKED_B_SLICES) * 4 + PACKED_B_SLICES * SLICE_ELEMENTS * 2 };

// The workspace of a thread in WORKSPACE_BYTES of memory.
static inline matmul_workspace matmul_workspace_in(char *memory) {
    uint16_t *packed_b = (uint16_t *)memory;
    float *inverse_scales = (float *)(packed_b + PACKED_B_SLICES * SLICE_ELEMENTS);
    const packed_matrix b = {packed_b, inverse_scales, BLOCK_DEPTH / SLICE_DEPTH};
    return (matmul_workspace){b, (uint32_t *)(inverse_scales + PACKED_B_SLICES)};
}
