// Matmuls of weights with the vectors of B sequences, for decode.c: chooses the fastest method for the batch and CPU,
// and packs the inputs for it. Threads share the rows of the matrix.

#pragma once
#include "decode_small_batch.h"
#include "decode_large_batch.h"
#include "decode_amx.h"

#define MIN_LARGE_BATCH 9 // sequences from which on groups of sequences are faster

enum method { SMALL_BATCH, LARGE_BATCH, AMX };

// The method for weights of this type and a batch of this size.
static enum method choose_method(int type, int batch) {
#ifdef HAS_AMX
    if (amx_available && type != FP32 && batch >= MIN_AMX_BATCH) return AMX;
#endif
    return batch >= (type == INT8 ? MIN_LARGE_BATCH_INT8 : MIN_LARGE_BATCH) ? LARGE_BATCH : SMALL_BATCH;
}

// Floats of workspace that `pack_inputs` needs for inputs of so many columns.
static long packed_input_floats(int batch, long columns, int n_threads) {
    const long large_batch = round_up(batch, GROUP) * round_up(columns, GROUP_COLUMNS);
    const long small_batch = n_threads * quantized_input_floats(batch, columns);
    return large_batch > small_batch ? large_batch : small_batch;
}

// Packs the inputs of matmuls, x (B, columns), in the layout that `decode_matmul` needs, padded with zeros. All threads
// call it; when it returns, the packed inputs are complete.
static void pack_inputs(enum method method, int type, const float *x, int batch, long columns, float *packed) {
    if (method == SMALL_BATCH) {
        const long thread = thread_index() * quantized_input_floats(batch, columns);
        if (type == INT8) quantize_inputs(x, batch, columns, packed + thread);
        return;
    }
    const long padded = round_up(columns, GROUP_COLUMNS);
    for (long first = 0; first < batch; first += GROUP) {
#pragma omp for schedule(static) nowait
        for (long c = 0; c < padded; c++) {
            for (long b = 0; b < GROUP; b++) {
                const float value = first + b < batch && c < columns ? x[(first + b) * columns + c] : 0;
                if (method == LARGE_BATCH) packed[first * padded + c * GROUP + b] = value;
                else store_scalar(packed, first * padded + (c / 2 * GROUP + b) * 2 + c % 2, value, BF16);
            }
        }
    }
#pragma omp barrier
}

// y (B, rows) = x (B, columns) times the transposed weights, plus the bias. Every thread computes a range of rows and
// returns without waiting for the others.
static void decode_matmul(
    const weights *m, enum method method, int type, const float *x, int batch, const float *packed, float *y
) {
#ifdef HAS_AMX
    if (method == AMX) {
        matmul_amx(m, type, (const uint16_t *)packed, batch, y);
        return;
    }
#endif
    if (method == LARGE_BATCH && type == INT8) matmul_large_batch(m, INT8, packed, batch, y);
    else if (method == LARGE_BATCH && type == BF16) matmul_large_batch(m, BF16, packed, batch, y);
    else if (method == LARGE_BATCH) matmul_large_batch(m, FP32, packed, batch, y);
    else if (type == INT8)
        matmul_small_batch(m, INT8, packed + thread_index() * quantized_input_floats(batch, m->columns), batch, y);
    else if (type == BF16) matmul_small_batch(m, BF16, x, batch, y);
    else matmul_small_batch(m, FP32, x, batch, y);
}
