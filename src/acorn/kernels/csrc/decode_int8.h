// Matmuls with int8 weights, whose rows are quantized with one scale each.
//
// Inputs are quantized to int16, because x86 CPUs multiply and add two pairs of int16 in one instruction. The error of
// an input is at most 1/65,534 of its sequence's largest element. Products are summed exactly, as int32, over as many
// columns as cannot overflow; these sums are then accumulated in fp32.

#pragma once
#include "decode_weights.h"

#define MIN_LARGE_BATCH_INT8 13 // sequences from which on groups, whose weights are converted to fp32, are faster

typedef int16_t i16x __attribute__((vector_size(4 * WIDTH), aligned(2)));

#define I16_WIDTH (2 * WIDTH) // elements of an i16x
#define MAX_INT16 32767.0f    // largest quantized input
#define INT32_SAFE_COLUMNS (256 * I16_WIDTH) // columns whose sums (256 pairs per element) cannot overflow int32

static inline __attribute__((always_inline)) i16x load_i16x(const int8_t *from) {
#if defined(__AVX512BW__)
    return (i16x)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)from));
#elif defined(__AVX2__)
    return (i16x)_mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)from));
#else
    typedef int8_t bytes __attribute__((vector_size(I16_WIDTH), aligned(1)));
    return __builtin_convertvector(*(const bytes *)from, i16x);
#endif
}

// sums[i] + a[2 i] * b[2 i] + a[2 i + 1] * b[2 i + 1]
static inline __attribute__((always_inline)) i32x add_products(i32x sums, i16x a, i16x b) {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
    return (i32x)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return sums + (i32x)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return sums + (i32x)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__) && !defined(__AVX__)
    return sums + (i32x)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    const i32x first = ((i32x)a << 16 >> 16) * ((i32x)b << 16 >> 16);
    return sums + first + ((i32x)a >> 16) * ((i32x)b >> 16);
#endif
}

// The quantization scale of a sequence's inputs; not finite if an input is not. The maximum is taken of the bit
// patterns: absolute values of floats sort like integers, with infinity and NaN last.
static float int16_scale(const float *x, long columns) {
    i32x maxima = (i32x)broadcast(1e-30f); // avoids division by zero
    for (long c = 0; c < columns; c += WIDTH) {
        const i32x magnitude = (i32x)load_partial(x, c, columns - c, FP32) & 0x7fffffff, is_larger = magnitude > maxima;
        maxima = (is_larger & magnitude) | (~is_larger & maxima);
    }
    int32_t maximum_bits = 0;
    for (int i = 0; i < WIDTH; i++) maximum_bits = maxima[i] > maximum_bits ? maxima[i] : maximum_bits;
    float maximum;
    memcpy(&maximum, &maximum_bits, sizeof maximum);
    return maximum / MAX_INT16;
}

// Values of up to MAX_INT16 to the nearest integer: after adding 3 * 2^22 the low bits of a float are that integer.
static inline __attribute__((always_inline)) u16x round_to_int16(f32x values) {
    return narrow((u32x)(values + 12582912.0f));
}

// Quantized inputs: for each sequence its scale, a float that takes the place of one vector, and then its int16 values.
static inline long quantized_stride(long columns) { return I16_WIDTH + round_up(columns, I16_WIDTH); }

// Size of a thread's quantized inputs in floats. Every thread has its own copy, so that threads need not wait for each
// other.
static long quantized_input_floats(long batch, long columns) { return batch * quantized_stride(columns) / 2; }

static void quantize_inputs(const float *x, int batch, long columns, float *packed) {
    for (long b = 0; b < batch; b++) {
        int16_t *sequence = (int16_t *)packed + b * quantized_stride(columns);
        const float scale = int16_scale(x + b * columns, columns);
        memcpy(sequence, &scale, sizeof scale);
        for (long c = 0; c < columns; c += WIDTH) {
            const f32x scaled = load_partial(x, b * columns + c, columns - c, FP32) * (1 / scale);
            *(u16x *)(sequence + I16_WIDTH + c) = round_to_int16(scaled);
        }
    }
}

// `matmul_rows` for B sequences from `first` on, with inputs that `quantize_inputs` packed.
static inline __attribute__((always_inline)) void matmul_rows_int8(
    const weights *m, long row, const int R, const float *packed, long first, const int B, float *y
) {
    const long columns = m->columns, n_full = columns / I16_WIDTH * I16_WIDTH;
    const long x_stride = quantized_stride(columns);
    const int8_t *weights = (const int8_t *)m->weight + row * columns;
    const int16_t *sequences = (const int16_t *)packed + first * x_stride, *x = sequences + I16_WIDTH;
    f32x sums[4][4] = {0};
    for (long begin = 0; begin < n_full; begin += INT32_SAFE_COLUMNS) {
        i32x int_sums[4][4] = {0};
        for (long c = begin; c < n_full && c < begin + INT32_SAFE_COLUMNS; c += I16_WIDTH) {
            for (int r = 0; r < R; r++) {
                __builtin_prefetch(weights + r * columns + c + WEIGHT_PREFETCH_BYTES);
                const i16x w = load_i16x(weights + r * columns + c);
                for (int b = 0; b < B; b++)
                    int_sums[r][b] = add_products(int_sums[r][b], w, *(const i16x *)(x + b * x_stride + c));
            }
        }
        for (int r = 0; r < R; r++)
            for (int b = 0; b < B; b++) sums[r][b] += __builtin_convertvector(int_sums[r][b], f32x);
    }
    for (int b = 0; b < B; b++) {
        float scale;
        memcpy(&scale, sequences + b * x_stride, sizeof scale);
        for (int r = 0; r < R; r++) {
            float sum = reduce_add(sums[r][b]);
            for (long c = n_full; c < columns; c++) sum += weights[r * columns + c] * x[b * x_stride + c];
            y[b * (long)m->rows + row + r] = scale_and_add_bias(m, row + r, sum * scale);
        }
    }
}
