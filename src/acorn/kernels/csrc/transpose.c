// Matrices of bf16 transposed, a tile at a time, since rows of the one are columns of the other. Called by
// cross_entropy.py.
//
// PyTorch's copy of a transposed matrix takes three times as long: it uses one thread.

#include "simd.h"

#define TRANSPOSE_TILE 64 // rows and columns: 8 KiB in bf16, which the first cache holds

// Asks for a row of a tile that is written soon and not read before: its lines come by themselves only one at a time.
static inline void ask_for(const void *row, long bytes) {
    for (long at = 0; at < bytes; at += LINE) __builtin_prefetch((const char *)row + at, 1);
}

// Asks for a tile that is read next: each of its rows lies on another page, where CPUs do not look ahead.
static inline void ask_for_tile(const uint16_t *from, long rows, long columns, long top, long left) {
    for (long r = top; r < rows && r < top + TRANSPOSE_TILE; r++)
        for (long c = left; c < left + TRANSPOSE_TILE; c += LINE / 2) __builtin_prefetch(from + r * columns + c);
}

// `from` (rows, columns) becomes `to` (columns, rows).
void transpose(
    const uint16_t *restrict from, int64_t rows, int64_t columns, uint16_t *restrict to, int32_t n_threads
) {
#pragma omp parallel for collapse(2) num_threads(n_threads) schedule(static)
    for (long left = 0; left < columns; left += TRANSPOSE_TILE)
        for (long top = 0; top < rows; top += TRANSPOSE_TILE) {
            const long height = least(TRANSPOSE_TILE, rows - top), width = least(TRANSPOSE_TILE, columns - left);
            for (long c = 0; c < width; c++) ask_for(to + (left + c) * rows + top, height * sizeof *to);
            ask_for_tile(from, rows, columns, top + TRANSPOSE_TILE, left);
            uint16_t tile[TRANSPOSE_TILE][TRANSPOSE_TILE];
            for (long r = 0; r < height; r++)
                for (long c = 0; c < width; c++) tile[c][r] = from[(top + r) * columns + left + c];
            for (long c = 0; c < width; c++)
                memcpy(to + (left + c) * rows + top, tile[c], height * sizeof *to);
        }
}

// `from` (rows, columns) is added to `to` (columns, rows), which is fp32; where `is_first`, it takes its place.
void add_transposed(
    const uint16_t *restrict from, int64_t rows, int64_t columns, float *restrict to, int32_t is_first,
    int32_t n_threads
) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long left = 0; left < columns; left += TRANSPOSE_TILE)
        for (long top = 0; top < rows; top += TRANSPOSE_TILE) {
            const long height = least(TRANSPOSE_TILE, rows - top), width = least(TRANSPOSE_TILE, columns - left);
            if (is_first)
                for (long c = 0; c < width; c++) ask_for(to + (left + c) * rows + top, height * sizeof *to);
            ask_for_tile(from, rows, columns, top + TRANSPOSE_TILE, left);
            float tile[TRANSPOSE_TILE][TRANSPOSE_TILE];
            for (long r = 0; r < height; r++)
                for (long c = 0; c < width; c++) tile[c][r] = load_one(from, (top + r) * columns + left + c, BF16);
            for (long c = 0; c < width; c++) {
                float *row = to + (left + c) * rows + top;
                if (is_first) memcpy(row, tile[c], height * sizeof *row);
                else
                    for (long r = 0; r < height; r++) row[r] += tile[c][r];
            }
        }
}
