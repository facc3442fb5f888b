// Vectors and number formats of acorn's C files. Vectors are GCC's and Clang's own (`vector_size`), which become the
// instructions of whatever CPU compiles this.

#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __SSE2__
#include <immintrin.h>
#endif

// Floats of a vector: as many as a register has. Compilers keep wider vectors in memory, which is several times as slow.
#if defined(__AVX512BW__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
typedef float floats __attribute__((vector_size(4 * WIDTH), aligned(4)));
typedef uint32_t words __attribute__((vector_size(4 * WIDTH), aligned(1)));
typedef uint16_t halves __attribute__((vector_size(2 * WIDTH), aligned(2)));
typedef int32_t integers __attribute__((vector_size(4 * WIDTH), aligned(4)));
typedef float four_floats __attribute__((vector_size(16), aligned(4)));

enum type { FP32, BF16, INT8 };
enum { LINE = 64 }; // bytes that a cache takes from memory at once

static inline long least(long a, long b) { return a < b ? a : b; }

// The first line that begins at `place` or after it. With malloc it stands for aligned_alloc, whose blocks glibc before
// 2.38 cannot give out again: it wants more room than a block that was given back has.
static inline char *next_line(char *place) { return (char *)(((uintptr_t)place + LINE - 1) / LINE * LINE); }

// Numbers of 16 bits as words and back. Intel's own names for it, since GCC puts it together from halves of registers.
static inline __attribute__((always_inline)) words widened(halves narrow) {
#if defined(__AVX512BW__)
    return (words)_mm512_cvtepu16_epi32((__m256i)narrow);
#elif defined(__AVX2__)
    return (words)_mm256_cvtepu16_epi32((__m128i)narrow);
#else
    return __builtin_convertvector(narrow, words);
#endif
}

static inline __attribute__((always_inline)) halves narrowed(words wide) {
#if defined(__AVX512BW__)
    return (halves)_mm512_cvtepi32_epi16((__m512i)wide);
#else
    return __builtin_convertvector(wide, halves);
#endif
}

static inline __attribute__((always_inline)) floats load_bytes(const int8_t *from) {
#if defined(__AVX512BW__)
    return (floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)from)));
#elif defined(__AVX2__)
    return (floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)from)));
#else
    floats values;
    for (int i = 0; i < WIDTH; i++) values[i] = from[i];
    return values;
#endif
}

static inline __attribute__((always_inline)) floats load(const void *from, long index, int type) {
    if (type == INT8) return load_bytes((const int8_t *)from + index);
    if (type == FP32) return *(const floats *)((const float *)from + index);
    return (floats)(widened(*(const halves *)((const uint16_t *)from + index)) << 16);
}

static inline float load_one(const void *from, long index, int type) {
    if (type == FP32) return ((const float *)from)[index];
    if (type == INT8) return ((const int8_t *)from)[index];
    uint32_t wide = (uint32_t)((const uint16_t *)from)[index] << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static inline __attribute__((always_inline)) void store(void *to, long index, floats value, int type) {
    if (type == FP32) {
        *(floats *)((float *)to + index) = value;
        return;
    }
    const integers is_nan = value != value; // rounding might make it a number
    words wide = (words)value;
    wide = (wide + 0x7fff + (wide >> 16 & 1)) >> 16; // to the nearest, ties to even
    wide |= (words)is_nan & 0x7fc0;
    *(halves *)((uint16_t *)to + index) = narrowed(wide);
}

static inline void store_one(void *to, long index, float value, int type) {
    if (type == FP32) {
        ((float *)to)[index] = value;
        return;
    }
    uint32_t wide;
    memcpy(&wide, &value, sizeof wide);
    ((uint16_t *)to)[index] = value != value ? 0x7fc0 : (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
}

// The same for the first n numbers of a vector, where n may be more than it holds; the others are zero.
static inline __attribute__((always_inline)) floats load_some(const void *from, long index, long n, int type) {
    if (n >= WIDTH) return load(from, index, type);
    floats values = {0};
    for (long i = 0; i < n; i++) values[i] = load_one(from, index + i, type);
    return values;
}

static inline __attribute__((always_inline)) void store_some(void *to, long index, long n, floats values, int type) {
    if (n >= WIDTH) store(to, index, values, type);
    else
        for (long i = 0; i < n; i++) store_one(to, index + i, values[i], type);
}

static inline float total(floats v) {
    four_floats parts[WIDTH / 4];
    memcpy(parts, &v, sizeof v);
    for (int i = 1; i < WIDTH / 4; i++) parts[0] += parts[i];
    return parts[0][0] + parts[0][1] + (parts[0][2] + parts[0][3]);
}

static inline __attribute__((always_inline)) floats all(float value) { return (floats){0} + value; }

// A where it is larger, else b.
static inline __attribute__((always_inline)) floats larger(floats a, floats b) {
    integers first = a > b;
    return (floats)((first & (integers)a) | (~first & (integers)b));
}

static inline __attribute__((always_inline)) floats smaller(floats a, floats b) { return -larger(-a, -b); }

// NaN is passed over: it comes back in the exponentials, and so in their sum.
static inline float largest_of(floats v) {
    float most = -INFINITY;
    for (int i = 0; i < WIDTH; i++) most = v[i] > most ? v[i] : most;
    return most;
}

// e^x for x <= 0 within 2e-7 of it; under -87, where floats end, e^-87. NaN stays NaN. x = n ln 2 + r, and e^r is a
// polynomial (the coefficients are those of Cephes' expf, Moshier 1992).
static inline __attribute__((always_inline)) floats exponential(floats x) {
    x = larger(all(-87), x);
    integers n = __builtin_convertvector(x * 1.44269504f - 0.5f, integers); // towards zero, so to the nearest
    floats whole = __builtin_convertvector(n, floats);
    floats r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f; // ln 2 in two parts
    floats series = 1.9875691500e-4f * r + 1.3981999507e-3f;
    series = series * r + 8.3334519073e-3f;
    series = series * r + 4.1665795894e-2f;
    series = series * r + 1.6666665459e-1f;
    series = series * r + 5.0000001201e-1f;
    floats power = (floats)((n + 127) << 23); // 2^n
    return (series * r * r + r + 1.0f) * power;
}

// 1 / (1 + e^-x)
static inline __attribute__((always_inline)) floats sigmoid(floats x) {
    const floats small = exponential(-larger(x, -x)); // e^-|x|
    const integers positive = x > 0;
    return (floats)((positive & (integers)all(1)) | (~positive & (integers)small)) / (1 + small);
}

// GPT-2's GELU is x (1 + tanh(u)) / 2 or x sigmoid(2 u), where 2 u = x (GELU_SLOPE + GELU_BEND x^2).
static const float GELU_SLOPE = 1.59576912f, GELU_BEND = 0.0713548163f; // 2 sqrt(2 / pi), and 0.044715 times that
enum { GELU_FLAT = 20 }; // beyond which it is zero on the left, and x on the right

// Under -GELU_FLAT as there, or `sigmoid`, which ends at e^-87, times a very large number would be seen. NaN stays NaN.
static inline __attribute__((always_inline)) floats gelu_of(floats x) {
    x = larger(all(-GELU_FLAT), x);
    return x * sigmoid(x * (GELU_SLOPE + GELU_BEND * x * x));
}

// Its derivative: that of x s, for a sigmoid s of x. Beyond GELU_FLAT as there, or x^3 might be infinite.
static inline __attribute__((always_inline)) floats gelu_derivative(floats x) {
    x = smaller(all(GELU_FLAT), larger(all(-GELU_FLAT), x));
    const floats s = sigmoid(x * (GELU_SLOPE + GELU_BEND * x * x));
    return s * (1 + (1 - s) * x * (GELU_SLOPE + 3 * GELU_BEND * x * x));
}

static inline int this_thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

static inline int thread_count(void) {
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}
