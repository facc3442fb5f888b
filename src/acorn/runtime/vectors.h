// Vectors and number formats of acorn's C files. Vectors are GCC's and Clang's own (`vector_size`), which become the
// instructions of whatever CPU compiles this.

#include <math.h>
#include <stdint.h>
#include <string.h>

#define WIDTH 16 // floats of a vector; narrower CPUs take several registers for it
typedef float floats __attribute__((vector_size(4 * WIDTH), aligned(4)));
typedef uint32_t words __attribute__((vector_size(4 * WIDTH), aligned(1)));
typedef uint16_t halves __attribute__((vector_size(2 * WIDTH), aligned(2)));
typedef int32_t integers __attribute__((vector_size(4 * WIDTH), aligned(4)));
typedef float half_floats __attribute__((vector_size(2 * WIDTH), aligned(4)));
typedef float quarter_floats __attribute__((vector_size(WIDTH), aligned(4)));

enum type { FP32, BF16, INT8 };

static inline __attribute__((always_inline)) floats load(const void *from, long index, int type) {
    if (type == FP32) return *(const floats *)((const float *)from + index);
    return (floats)(__builtin_convertvector(*(const halves *)((const uint16_t *)from + index), words) << 16);
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
    words wide = (words)value;
    wide = (wide + 0x7fff + (wide >> 16 & 1)) >> 16; // to the nearest, ties to even
    *(halves *)((uint16_t *)to + index) = __builtin_convertvector(wide, halves);
}

static inline void store_one(void *to, long index, float value, int type) {
    if (type == FP32) {
        ((float *)to)[index] = value;
        return;
    }
    uint32_t wide;
    memcpy(&wide, &value, sizeof wide);
    ((uint16_t *)to)[index] = (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
}

static inline float total(floats v) {
    half_floats half[2];
    memcpy(half, &v, sizeof v);
    half[0] += half[1];
    quarter_floats quarter[2];
    memcpy(quarter, half, sizeof quarter);
    quarter[0] += quarter[1];
    return quarter[0][0] + quarter[0][1] + (quarter[0][2] + quarter[0][3]);
}
