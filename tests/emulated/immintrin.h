// Intel's AMX instructions in plain C, to test code for them on other CPUs. Included instead of the compiler's header
// of this name. A tile is 16 rows of 64 bytes.

#pragma once
#include_next <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define syscall(...) 0 // the system grants AMX

static _Thread_local int configured;
static _Thread_local unsigned char tiles[8][16][64];

#undef _tile_loadconfig
#define _tile_loadconfig emulated_loadconfig
static inline void _tile_loadconfig(const void *config) {
    const unsigned char *shapes = config;
    for (int t = 0; t < 6; t++)
        if (shapes[16 + 2 * t] != 64 || shapes[48 + t] != 16) return;
    configured = shapes[0] == 1;
}

#undef _tile_release
#define _tile_release emulated_release
static inline void _tile_release(void) { configured = 0; }

// The result of an unconfigured tile; a CPU would end the process.
static inline float emulated_fault(void) { return configured ? 0 : NAN; }

#undef _tile_zero
#define _tile_zero emulated_zero
static inline void _tile_zero(int t) { memset(tiles[t], 0, sizeof tiles[t]); }

#undef _tile_loadd
#define _tile_loadd emulated_loadd
static inline void _tile_loadd(int t, const void *from, long stride) {
    for (int row = 0; row < 16; row++) memcpy(tiles[t][row], (const char *)from + row * stride, 64);
}

#undef _tile_stored
#define _tile_stored emulated_stored
static inline void _tile_stored(int t, void *to, long stride) {
    for (int row = 0; row < 16; row++) memcpy((char *)to + row * stride, tiles[t][row], 64);
}

static inline float emulated_bf16(int t, int row, int column) {
    uint16_t narrow;
    memcpy(&narrow, tiles[t][row] + 2 * column, 2);
    const uint32_t wide = (uint32_t)narrow << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

// c[m][n] += a[m][2 k] * b[k][2 n] + a[m][2 k + 1] * b[k][2 n + 1]
#undef _tile_dpbf16ps
#define _tile_dpbf16ps emulated_dpbf16ps
static inline void _tile_dpbf16ps(int c, int a, int b) {
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float sum;
            memcpy(&sum, tiles[c][m] + 4 * n, 4);
            for (int k = 0; k < 16; k++)
                for (int half = 0; half < 2; half++)
                    sum += emulated_bf16(a, m, 2 * k + half) * emulated_bf16(b, k, 2 * n + half);
            sum += emulated_fault();
            memcpy(tiles[c][m] + 4 * n, &sum, 4);
        }
}
