// Matrices of bf16 turned round, for CPUs, a tile at a time, since rows of the one are columns of the other. PyTorch's
// copy of a turned matrix takes three times as long: it uses one thread. Called by native_loss.py.

#include "vectors.h"

#define TILE 64 // rows and columns: 8 KiB in bf16, which the first cache holds

#define LINE 64 // bytes that a cache takes from memory at once

static inline long least(long a, long b) { return a < b ? a : b; }

// Asks for a row of a tile that is written soon and not read before: its lines come by themselves only one at a time.
static inline void ask_for(const void *row, long bytes) {
    for (long at = 0; at < bytes; at += LINE) __builtin_prefetch((const char *)row + at, 1);
}

// `from` (rows, columns) becomes `to` (columns, rows).
void turn(
    const uint16_t *restrict from, int64_t rows, int64_t columns, uint16_t *restrict to, int32_t n_threads
) {
#pragma omp parallel for collapse(2) num_threads(n_threads) schedule(static)
    for (long left = 0; left < columns; left += TILE)
        for (long top = 0; top < rows; top += TILE) {
            const long height = least(TILE, rows - top), width = least(TILE, columns - left);
            for (long c = 0; c < width; c++) ask_for(to + (left + c) * rows + top, height * sizeof *to);
            uint16_t tile[TILE][TILE];
            for (long r = 0; r < height; r++)
                for (long c = 0; c < width; c++) tile[c][r] = from[(top + r) * columns + left + c];
            for (long c = 0; c < width; c++)
                memcpy(to + (left + c) * rows + top, tile[c], height * sizeof *to);
        }
}

// `from` (rows, columns) is added to `to` (columns, rows), which is fp32; where `is_first`, it takes its place.
void add_turned(
    const uint16_t *restrict from, int64_t rows, int64_t columns, float *restrict to, int32_t is_first,
    int32_t n_threads
) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long left = 0; left < columns; left += TILE)
        for (long top = 0; top < rows; top += TILE) {
            const long height = least(TILE, rows - top), width = least(TILE, columns - left);
            if (is_first)
                for (long c = 0; c < width; c++) ask_for(to + (left + c) * rows + top, height * sizeof *to);
            float tile[TILE][TILE];
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
