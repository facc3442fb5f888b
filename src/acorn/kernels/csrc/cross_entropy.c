// The loss of the head, for CPUs. Called by cross_entropy.py.
//
// Logits become the gradient of the cross-entropy by them, in place.
// A row of logits is read once from memory and then stays in the second cache for three passes: the largest, the
// exponentials and their sum, the probabilities. PyTorch's own operations take three times as long
// (docs/lab-notebook.md): each is a pass over memory of its own, in fp32.

#include "simd.h"

#define AT_ONCE 4 // vectors: an addition or comparison waits for the one before it, so several go on side by side

// Returns the loss of a row of V logits; they become probabilities - one-hot(target). Where the target is under 0 the
// row counts nothing: no loss, and zeros. `powers` is a workspace for V floats.
static inline __attribute__((always_inline)) float loss_of_row(
    void *logits, long V, long target, int type, float *powers
) {
    if (target < 0) {
        memset(logits, 0, V * (type == FP32 ? 4 : 2));
        return 0;
    }
    const long whole = V / WIDTH * WIDTH, most_of_it = whole / (AT_ONCE * WIDTH) * (AT_ONCE * WIDTH);
    f32x largest[AT_ONCE], sums[AT_ONCE];
    for (int k = 0; k < AT_ONCE; k++) largest[k] = splat(-INFINITY), sums[k] = splat(0);
    for (long c = 0; c < most_of_it; c += AT_ONCE * WIDTH)
        for (int k = 0; k < AT_ONCE; k++) largest[k] = larger(load(logits, c + k * WIDTH, type), largest[k]);
    for (long c = most_of_it; c < whole; c += WIDTH) largest[0] = larger(load(logits, c, type), largest[0]);
    for (int k = 1; k < AT_ONCE; k++) largest[0] = larger(largest[k], largest[0]);
    float top = largest_of(largest[0]);
    for (long c = whole; c < V; c++) top = load_one(logits, c, type) > top ? load_one(logits, c, type) : top;

    const float of_target = load_one(logits, target, type) - top;
    for (long c = 0; c < most_of_it; c += AT_ONCE * WIDTH) {
        for (int k = 0; k < AT_ONCE; k++) {
            const f32x power = exponential(load(logits, c + k * WIDTH, type) - top);
            store(powers, c + k * WIDTH, power, FP32);
            sums[k] += power;
        }
    }
    for (long c = most_of_it; c < whole; c += WIDTH) {
        const f32x power = exponential(load(logits, c, type) - top);
        store(powers, c, power, FP32);
        sums[0] += power;
    }
    float sum = sum_of(sums[0]) + sum_of(sums[1]) + (sum_of(sums[2]) + sum_of(sums[3]));
    for (long c = whole; c < V; c++) sum += powers[c] = exponential(splat(load_one(logits, c, type) - top))[0];

    const float share = 1 / sum;
    for (long c = 0; c < whole; c += WIDTH) store(logits, c, load(powers, c, FP32) * share, type);
    for (long c = whole; c < V; c++) store_one(logits, c, powers[c] * share, type);
    store_one(logits, target, powers[target] * share - 1, type);
    return logf(sum) - of_target;
}

// logits (n, V) of `type`, targets (n); losses (n) is written. workspace: (n_threads, V) floats.
void cross_entropy_gradient(
    void *logits, int64_t n, int64_t V, int32_t type, const int64_t *targets, float *losses, float *workspace,
    int32_t n_threads
) {
#pragma omp parallel num_threads(n_threads)
    {
        float *powers = workspace + this_thread() * V;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n; i++)
            losses[i] = type == FP32 ? loss_of_row((float *)logits + i * V, V, targets[i], FP32, powers)
                                     : loss_of_row((uint16_t *)logits + i * V, V, targets[i], BF16, powers);
    }
}
