// Transposes bf16 matrices a tile at a time, so that both reads and writes stay in the cache. Called by
// cross_entropy.py.
//
// PyTorch copies a transposed matrix on one thread only (docs/lab-notebook.md).

#include "simd.h"

#define TRANSPOSE_TILE 64 // rows and columns: 8 KiB in bf16, which fits in the L1 cache

// Prefetches a row of a tile for writing: without it the row's cache lines are fetched one at a time.
static inline void prefetch_row(const void *row, long bytes) {
    for (long at = 0; at < bytes; at += CACHE_LINE) __builtin_prefetch((const char *)row + at, 1);
}

// Prefetches the tile that is read next: its rows are on different pages, where hardware prefetchers do not follow.
static inline void prefetch_tile(const uint16_t *from, long rows, long columns, long top, long left) {
    for (long r = top; r < rows && r < top + TRANSPOSE_TILE; r++)
        for (long c = left; c < left + TRANSPOSE_TILE; c += CACHE_LINE / 2) __builtin_prefetch(from + r * columns + c);
}

// to (columns, rows) = from (rows, columns), transposed.
void transpose(
    const uint16_t *restrict from, int64_t rows, int64_t columns, uint16_t *restrict to, int32_t n_threads
) {
#pragma omp parallel for collapse(2) num_threads(n_threads) schedule(static)
    for (long left = 0; left < columns; left += TRANSPOSE_TILE)
        for (long top = 0; top < rows; top += TRANSPOSE_TILE) {
            const long height = min_long(TRANSPOSE_TILE, rows - top), width = min_long(TRANSPOSE_TILE, columns - left);
            for (long c = 0; c < width; c++) prefetch_row(to + (left + c) * rows + top, height * sizeof *to);
            prefetch_tile(from, rows, columns, top + TRANSPOSE_TILE, left);
            uint16_t tile[TRANSPOSE_TILE][TRANSPOSE_TILE];
            for (long r = 0; r < height; r++)
                for (long c = 0; c < width; c++) tile[c][r] = from[(top + r) * columns + left + c];
            for (long c = 0; c < width; c++)
                memcpy(to + (left + c) * rows + top, tile[c], height * sizeof *to);
        }
}

// to (columns, rows, fp32) += from (rows, columns), transposed; with `overwrite`, = instead of +=.
void add_transposed(
    const uint16_t *restrict from, int64_t rows, int64_t columns, float *restrict to, int32_t overwrite,
    int32_t n_threads
) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long left = 0; left < columns; left += TRANSPOSE_TILE)
        for (long top = 0; top < rows; top += TRANSPOSE_TILE) {
            const long height = min_long(TRANSPOSE_TILE, rows - top), width = min_long(TRANSPOSE_TILE, columns - left);
            if (overwrite)
                for (long c = 0; c < width; c++) prefetch_row(to + (left + c) * rows + top, height * sizeof *to);
            prefetch_tile(from, rows, columns, top + TRANSPOSE_TILE, left);
            float tile[TRANSPOSE_TILE][TRANSPOSE_TILE];
            for (long r = 0; r < height; r++)
                for (long c = 0; c < width; c++) tile[c][r] = load_scalar(from, (top + r) * columns + left + c, BF16);
            for (long c = 0; c < width; c++) {
                float *row = to + (left + c) * rows + top;
                if (overwrite) memcpy(row, tile[c], height * sizeof *row);
                else
                    for (long r = 0; r < height; r++) row[r] += tile[c][r];
            }
        }
}
