// Matmuls on Intel's matrix unit (AMX, in CPUs since Sapphire Rapids): 16 rows with 16 sequences in one instruction.
// For bf16 and int8 weights; inputs are rounded to bf16.

#pragma once
#include "decode_large_batch.h"

#if defined(__AMX_BF16__) && defined(__linux__)
#define HAS_AMX
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MIN_AMX_BATCH 5 // sequences from which on AMX is faster
#define TILE_COLUMNS 32 // bf16 elements in a row of a tile

static int amx_available; // whether Linux grants AMX to this process; a process must request it before the first use

static void request_amx(void) {
    amx_available = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
}

// Each thread calls this before its first matmul.
static void configure_tiles(void) {
    static const struct { // static, because compilers assumed that only its first bytes are read
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shapes = {
        .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64}, .rows = {GROUP, GROUP, GROUP, GROUP, GROUP, GROUP}
    };
    _tile_loadconfig(&shapes);
}

// GROUP rows and GROUP_COLUMNS columns of a matrix as two bf16 tiles, padded with zeros. Every int8 is exact in bf16.
static void copy_weights_to_tiles(
    const weights *m, int type, long row, long column, uint16_t (*tiles)[GROUP][TILE_COLUMNS]
) {
    const long rows = m->rows - row < GROUP ? m->rows - row : GROUP, columns = m->columns - column;
    if (rows < GROUP || columns < GROUP_COLUMNS) memset(tiles, 0, 2 * sizeof *tiles);
    for (int r = 0; r < rows; r++) {
        const long offset = (row + r) * m->columns + column;
        uint16_t *first = tiles[0][r], *second = tiles[1][r];
        for (int c = 0; columns >= GROUP_COLUMNS && c < TILE_COLUMNS; c += WIDTH) {
            store(first, c, load(m->weight, offset + c, type), BF16);
            store(second, c, load(m->weight, offset + TILE_COLUMNS + c, type), BF16);
        }
        for (int c = 0; columns < GROUP_COLUMNS && c < columns; c++)
            store_scalar(tiles[c / TILE_COLUMNS][r], c % TILE_COLUMNS, load_scalar(m->weight, offset + c, type), BF16);
    }
}

// y = x times the transposed weights. `packed`: x in bf16, for each group of sequences pairs of columns, as AMX takes
// them.
static void matmul_amx(const weights *m, int type, const uint16_t *packed, int batch, float *y) {
    const long padded = round_up(m->columns, GROUP_COLUMNS);
#pragma omp for schedule(static) nowait
    for (long row = 0; row < m->rows; row += GROUP) {
        for (long first = 0; first < batch; first += GROUP) {
            const uint16_t *pairs = packed + first * padded;
            _tile_zero(0);
            _tile_zero(1);
            for (long c = 0; c < padded; c += GROUP_COLUMNS) {
                if (first == 0) prefetch_next_rows(m, type, row, c);
                if (type == BF16 && row + GROUP <= m->rows && c + GROUP_COLUMNS <= m->columns) {
                    const uint16_t *offset = (const uint16_t *)m->weight + row * m->columns + c;
                    _tile_loadd(2, offset, 2 * m->columns);
                    _tile_loadd(3, offset + TILE_COLUMNS, 2 * m->columns);
                } else {
                    uint16_t tiles[2][GROUP][TILE_COLUMNS] __attribute__((aligned(64)));
                    copy_weights_to_tiles(m, type, row, c, tiles);
                    __asm__ volatile("" ::: "memory"); // compilers do not know which memory tile loads read
                    _tile_loadd(2, tiles[0], sizeof tiles[0][0]);
                    _tile_loadd(3, tiles[1], sizeof tiles[1][0]);
                    __asm__ volatile("" ::: "memory"); // nor when it has been read
                }
                _tile_loadd(4, pairs + c * GROUP, 64);
                _tile_loadd(5, pairs + (c + TILE_COLUMNS) * GROUP, 64);
                _tile_dpbf16ps(0, 2, 4); // two accumulators, because each instruction depends on the one before it
                _tile_dpbf16ps(1, 3, 5);
            }
            float sums[2][GROUP][GROUP];
            _tile_stored(0, sums[0], sizeof sums[0][0]);
            _tile_stored(1, sums[1], sizeof sums[1][0]);
            for (int r = 0; r < GROUP; r++)
                for (int b = 0; b < GROUP; b++) sums[0][r][b] += sums[1][r][b];
            store_sums(m, row, first, batch, sums[0], y);
        }
    }
}
#endif
