// The loss of the head, for CPUs. Called by native_loss.py.
//
// Logits become the gradient of the cross-entropy by them, in place.
// A row of logits is read once from memory and then stays in the second cache for three passes: the largest, the
// exponentials and their sum, the probabilities. PyTorch's own operations take three times as long
// (docs/lab-notebook.md): each is a pass over memory of its own, in fp32.

#include "vectors.h"

#define AT_ONCE 4 // vectors: an addition or comparison waits for the one before it, so several go on side by side

// Returns the loss of a row of V logits; they become probabilities - one-hot(target). Where the target is under 0 the
// row counts nothing: no loss, and zeros. `powers` is room for V numbers.
static inline __attribute__((always_inline)) float row(void *logits, long V, long target, int type, float *powers) {
    if (target < 0) {
        memset(logits, 0, V * (type == FP32 ? 4 : 2));
        return 0;
    }
    const long whole = V / WIDTH * WIDTH, most_of_it = whole / (AT_ONCE * WIDTH) * (AT_ONCE * WIDTH);
    floats largest[AT_ONCE], sums[AT_ONCE];
    for (int k = 0; k < AT_ONCE; k++) largest[k] = all(-INFINITY), sums[k] = all(0);
    for (long c = 0; c < most_of_it; c += AT_ONCE * WIDTH)
        for (int k = 0; k < AT_ONCE; k++) largest[k] = larger(load(logits, c + k * WIDTH, type), largest[k]);
    for (long c = most_of_it; c < whole; c += WIDTH) largest[0] = larger(load(logits, c, type), largest[0]);
    for (int k = 1; k < AT_ONCE; k++) largest[0] = larger(largest[k], largest[0]);
    float top = largest_of(largest[0]);
    for (long c = whole; c < V; c++) top = load_one(logits, c, type) > top ? load_one(logits, c, type) : top;

    const float of_target = load_one(logits, target, type) - top;
    for (long c = 0; c < most_of_it; c += AT_ONCE * WIDTH) {
        for (int k = 0; k < AT_ONCE; k++) {
            const floats power = exponential(load(logits, c + k * WIDTH, type) - top);
            store(powers, c + k * WIDTH, power, FP32);
            sums[k] += power;
        }
    }
    for (long c = most_of_it; c < whole; c += WIDTH) {
        const floats power = exponential(load(logits, c, type) - top);
        store(powers, c, power, FP32);
        sums[0] += power;
    }
    float sum = total(sums[0]) + total(sums[1]) + (total(sums[2]) + total(sums[3]));
    for (long c = whole; c < V; c++) sum += powers[c] = exponential(all(load_one(logits, c, type) - top))[0];

    const float share = 1 / sum;
    for (long c = 0; c < whole; c += WIDTH) store(logits, c, load(powers, c, FP32) * share, type);
    for (long c = whole; c < V; c++) store_one(logits, c, powers[c] * share, type);
    store_one(logits, target, powers[target] * share - 1, type);
    return logf(sum) - of_target;
}

// logits (n, V) of `type`, targets (n); losses (n) is written. room: (n_threads, V) floats.
void softmax_gradient(
    void *logits, int64_t n, int64_t V, int32_t type, const int64_t *targets, float *losses, float *room,
    int32_t n_threads
) {
#pragma omp parallel num_threads(n_threads)
    {
        float *powers = room + this_thread() * V;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n; i++)
            losses[i] = type == FP32 ? row((float *)logits + i * V, V, targets[i], FP32, powers)
                                     : row((uint16_t *)logits + i * V, V, targets[i], BF16, powers);
    }
}

// Matrices of bf16 turned round, a tile at a time, since rows of the one are columns of the other. PyTorch's copy of a
// turned matrix takes three times as long: it uses one thread.

#define TILE 64 // rows and columns: 8 KiB in bf16, which the first cache holds

// Asks for a row of a tile that is written soon and not read before: its lines come by themselves only one at a time.
static inline void ask_for(const void *row, long bytes) {
    for (long at = 0; at < bytes; at += LINE) __builtin_prefetch((const char *)row + at, 1);
}

// Asks for a tile that is read next: each of its rows lies on another page, where CPUs do not look ahead.
static inline void ask_for_tile(const uint16_t *from, long rows, long columns, long top, long left) {
    for (long r = top; r < rows && r < top + TILE; r++)
        for (long c = left; c < left + TILE; c += LINE / 2) __builtin_prefetch(from + r * columns + c);
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
            ask_for_tile(from, rows, columns, top + TILE, left);
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
            ask_for_tile(from, rows, columns, top + TILE, left);
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
