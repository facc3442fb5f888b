// What matmuls with int8 weights are made of. Each row of such a matrix was divided by a scale.
//
// The inputs become integers too, of 16 bits, since Intel's and AMD's CPUs multiply and add two pairs of such in one
// instruction. What is lost of each is up to 1/65,534 of its sequence's largest element. Sums are integers, and exact,
// as long as they surely fit 32 bits; then they are added up as floats.

#pragma once
#include "decode_weights.h"

#define INT8_GROUPS_FROM 13 // sequences from which on groups, where weights become fp32, are faster

typedef int16_t i16x __attribute__((vector_size(4 * WIDTH), aligned(2)));

#define I16_WIDTH (2 * WIDTH)     // numbers of such a vector
#define LARGEST_INT16 32767.0f       // of an input
#define STRETCH (256 * I16_WIDTH) // columns whose sums, 256 pairs for each of a vector's numbers, fit 32 bits

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

// What the integers of a sequence's numbers have to be multiplied with; not finite where one is not. As integers, too,
// floats without their sign are in order, infinity and NaN last.
static float scale_of(const float *x, long columns) {
    i32x largest = (i32x)splat(1e-30f); // nothing is divided by zero
    for (long c = 0; c < columns; c += WIDTH) {
        const i32x size = (i32x)load_some(x, c, columns - c, FP32) & 0x7fffffff, is_larger = size > largest;
        largest = (is_larger & size) | (~is_larger & largest);
    }
    int32_t most = 0;
    for (int i = 0; i < WIDTH; i++) most = largest[i] > most ? largest[i] : most;
    float size;
    memcpy(&size, &most, sizeof size);
    return size / LARGEST_INT16;
}

// Numbers of up to LARGEST to the nearest integer: in a float of 3 * 2^22 and more the last bits are a whole number.
static inline __attribute__((always_inline)) u16x nearest_integers(f32x numbers) {
    return narrow((u32x)(numbers + 12582912.0f));
}

// Few sequences, of which every thread has its own copy, so that none waits for another: a scale for each, and rows of
// integers. In floats.
static long few_floats(long columns) { return GROUP + INT8_GROUPS_FROM * up_to_multiple(columns, I16_WIDTH) / 2; }

static void arrange_few(const float *x, int batch, long columns, float *arranged) {
    int16_t *numbers = (int16_t *)(arranged + GROUP);
    for (long b = 0; b < batch; b++) {
        arranged[b] = scale_of(x + b * columns, columns);
        for (long c = 0; c < columns; c += WIDTH) {
            const f32x shares = load_some(x, b * columns + c, columns - c, FP32) * (1 / arranged[b]);
            *(u16x *)(numbers + b * up_to_multiple(columns, I16_WIDTH) + c) = nearest_integers(shares);
        }
    }
}

// As `rows_times`, for the sequences from `first` on of those that `arrange_few` arranged.
static inline __attribute__((always_inline)) void rows_times_i16(
    const weights *m, long row, const int R, const float *arranged, long first, const int B, float *y
) {
    const long columns = m->columns, whole = columns / I16_WIDTH * I16_WIDTH;
    const long apart = up_to_multiple(columns, I16_WIDTH);
    const int8_t *weights = (const int8_t *)m->weight + row * columns;
    const int16_t *x = (const int16_t *)(arranged + GROUP) + first * apart;
    f32x sums[4][4] = {0};
    for (long begin = 0; begin < whole; begin += STRETCH) {
        i32x of_stretch[4][4] = {0};
        for (long c = begin; c < whole && c < begin + STRETCH; c += I16_WIDTH) {
            for (int r = 0; r < R; r++) {
                __builtin_prefetch(weights + r * columns + c + WEIGHTS_AHEAD);
                const i16x w = load_i16x(weights + r * columns + c);
                for (int b = 0; b < B; b++)
                    of_stretch[r][b] = add_products(of_stretch[r][b], w, *(const i16x *)(x + b * apart + c));
            }
        }
        for (int r = 0; r < R; r++)
            for (int b = 0; b < B; b++) sums[r][b] += __builtin_convertvector(of_stretch[r][b], f32x);
    }
    for (int r = 0; r < R; r++) {
        for (int b = 0; b < B; b++) {
            float sum = sum_of(sums[r][b]);
            for (long c = whole; c < columns; c++) sum += weights[r * columns + c] * x[b * apart + c];
            y[b * (long)m->rows + row + r] = with_scale_and_bias(m, row + r, sum * arranged[first + b]);
        }
    }
}
