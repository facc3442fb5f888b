// Vectors and element types of acorn's C files. Vectors are GCC's and Clang's own (`vector_size`), which become the
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

// fp32 elements of a vector: as many as fit in a register. Compilers spill wider vectors to memory, which is several
// times slower.
#if defined(__AVX512BW__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
typedef float f32x __attribute__((vector_size(4 * WIDTH), aligned(4)));
typedef uint32_t u32x __attribute__((vector_size(4 * WIDTH), aligned(1)));
typedef uint16_t u16x __attribute__((vector_size(2 * WIDTH), aligned(2)));
typedef int32_t i32x __attribute__((vector_size(4 * WIDTH), aligned(4)));
typedef float f32x4 __attribute__((vector_size(16), aligned(4)));

enum type { FP32, BF16, INT8 };
enum { CACHE_LINE = 64 }; // bytes

static inline long min_long(long a, long b) { return a < b ? a : b; }

// `pointer` rounded up to the next cache line. Used with malloc instead of aligned_alloc, because glibc before 2.38
// does not reuse freed aligned blocks: it asks for more bytes than the freed block has.
static inline char *align_to_cache_line(char *pointer) {
    return (char *)(((uintptr_t)pointer + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
}

// 16-bit elements to 32 bits and back. With Intel's intrinsics, because GCC's conversion works on half registers.
static inline __attribute__((always_inline)) u32x widen(u16x narrow) {
#if defined(__AVX512BW__)
    return (u32x)_mm512_cvtepu16_epi32((__m256i)narrow);
#elif defined(__AVX2__)
    return (u32x)_mm256_cvtepu16_epi32((__m128i)narrow);
#else
    return __builtin_convertvector(narrow, u32x);
#endif
}

static inline __attribute__((always_inline)) u16x narrow(u32x wide) {
#if defined(__AVX512BW__)
    return (u16x)_mm512_cvtepi32_epi16((__m512i)wide);
#else
    return __builtin_convertvector(wide, u16x);
#endif
}

static inline __attribute__((always_inline)) f32x load_int8(const int8_t *from) {
#if defined(__AVX512BW__)
    return (f32x)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)from)));
#elif defined(__AVX2__)
    return (f32x)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)from)));
#else
    f32x values;
    for (int i = 0; i < WIDTH; i++) values[i] = from[i];
    return values;
#endif
}

static inline __attribute__((always_inline)) f32x load(const void *from, long index, int type) {
    if (type == INT8) return load_int8((const int8_t *)from + index);
    if (type == FP32) return *(const f32x *)((const float *)from + index);
    return (f32x)(widen(*(const u16x *)((const uint16_t *)from + index)) << 16);
}

static inline float load_scalar(const void *from, long index, int type) {
    if (type == FP32) return ((const float *)from)[index];
    if (type == INT8) return ((const int8_t *)from)[index];
    uint32_t wide = (uint32_t)((const uint16_t *)from)[index] << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static inline __attribute__((always_inline)) void store(void *to, long index, f32x value, int type) {
    if (type == FP32) {
        *(f32x *)((float *)to + index) = value;
        return;
    }
    const i32x is_nan = value != value; // rounding could turn a NaN into a finite value
    u32x wide = (u32x)value;
    wide = (wide + 0x7fff + (wide >> 16 & 1)) >> 16; // round to nearest, ties to even
    wide |= (u32x)is_nan & 0x7fc0;
    *(u16x *)((uint16_t *)to + index) = narrow(wide);
}

static inline void store_scalar(void *to, long index, float value, int type) {
    if (type == FP32) {
        ((float *)to)[index] = value;
        return;
    }
    uint32_t wide;
    memcpy(&wide, &value, sizeof wide);
    ((uint16_t *)to)[index] = value != value ? 0x7fc0 : (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
}

// `load` and `store` of the first n elements of a vector; n may exceed WIDTH. The remaining elements load as zero.
static inline __attribute__((always_inline)) f32x load_partial(const void *from, long index, long n, int type) {
    if (n >= WIDTH) return load(from, index, type);
    f32x values = {0};
    for (long i = 0; i < n; i++) values[i] = load_scalar(from, index + i, type);
    return values;
}

static inline __attribute__((always_inline)) void store_partial(void *to, long index, long n, f32x values, int type) {
    if (n >= WIDTH) store(to, index, values, type);
    else
        for (long i = 0; i < n; i++) store_scalar(to, index + i, values[i], type);
}

static inline float reduce_add(f32x v) {
    f32x4 parts[WIDTH / 4];
    memcpy(parts, &v, sizeof v);
    for (int i = 1; i < WIDTH / 4; i++) parts[0] += parts[i];
    return parts[0][0] + parts[0][1] + (parts[0][2] + parts[0][3]);
}

static inline __attribute__((always_inline)) f32x broadcast(float value) { return (f32x){0} + value; }

// max(a, b), elementwise; b where either is NaN.
static inline __attribute__((always_inline)) f32x max_f32x(f32x a, f32x b) {
    i32x is_larger = a > b;
    return (f32x)((is_larger & (i32x)a) | (~is_larger & (i32x)b));
}

static inline __attribute__((always_inline)) f32x min_f32x(f32x a, f32x b) { return -max_f32x(-a, -b); }

// The largest element. Ignores NaN, which the callers' exponentials and their sum carry on.
static inline float reduce_max(f32x v) {
    float maximum = -INFINITY;
    for (int i = 0; i < WIDTH; i++) maximum = v[i] > maximum ? v[i] : maximum;
    return maximum;
}

// e^x for x <= 0, with a relative error below 2e-7. x is clamped to -87, near the smallest normal fp32 value of e^x.
// NaN stays NaN. x = n ln 2 + r, and e^r is a polynomial (coefficients of Cephes' expf, Moshier 1992).
static inline __attribute__((always_inline)) f32x exponential(f32x x) {
    x = max_f32x(broadcast(-87), x);
    // Truncation towards zero of (x / ln 2 - 0.5) rounds to nearest, since x <= 0.
    i32x n = __builtin_convertvector(x * 1.44269504f - 0.5f, i32x);
    f32x whole = __builtin_convertvector(n, f32x);
    f32x r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f; // ln 2 in two parts
    f32x series = 1.9875691500e-4f * r + 1.3981999507e-3f;
    series = series * r + 8.3334519073e-3f;
    series = series * r + 4.1665795894e-2f;
    series = series * r + 1.6666665459e-1f;
    series = series * r + 5.0000001201e-1f;
    f32x power = (f32x)((n + 127) << 23); // 2^n
    return (series * r * r + r + 1.0f) * power;
}

static inline int thread_index(void) {
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
