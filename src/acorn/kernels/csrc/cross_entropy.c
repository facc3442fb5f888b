// Cross-entropy of the head's logits on a CPU, forward and backward at once. Called by cross_entropy.py.
//
// Logits are replaced by their gradient, in place. A row of logits is read once from memory and stays in the L2 cache
// for the three loops over it: maximum, exponentials and their sum, probabilities. PyTorch runs an operation for each,
// and each reads and writes main memory in fp32 (docs/lab-notebook.md has the times).

#include "simd.h"

#define UNROLL 4 // independent vectors, because each addition or comparison depends on the one before it

// Returns the loss of a row of V logits, which become their gradient: probabilities - one-hot(target). A negative
// target is ignored: the loss is 0 and the gradient is zero. `exponentials` is a workspace of V floats.
static inline __attribute__((always_inline)) float cross_entropy_row(
    void *logits, long V, long target, int type, float *exponentials
) {
    if (target < 0) {
        memset(logits, 0, V * (type == FP32 ? 4 : 2));
        return 0;
    }
    const long n_full = V / WIDTH * WIDTH, n_unrolled = n_full / (UNROLL * WIDTH) * (UNROLL * WIDTH);
    f32x maxima[UNROLL], sums[UNROLL];
    for (int k = 0; k < UNROLL; k++) maxima[k] = broadcast(-INFINITY), sums[k] = broadcast(0);
    for (long c = 0; c < n_unrolled; c += UNROLL * WIDTH)
        for (int k = 0; k < UNROLL; k++) maxima[k] = max_f32x(load(logits, c + k * WIDTH, type), maxima[k]);
    for (long c = n_unrolled; c < n_full; c += WIDTH) maxima[0] = max_f32x(load(logits, c, type), maxima[0]);
    for (int k = 1; k < UNROLL; k++) maxima[0] = max_f32x(maxima[k], maxima[0]);
    float maximum = reduce_max(maxima[0]);
    for (long c = n_full; c < V; c++) {
        const float logit = load_scalar(logits, c, type);
        maximum = logit > maximum ? logit : maximum;
    }

    const float target_logit = load_scalar(logits, target, type) - maximum;
    for (long c = 0; c < n_unrolled; c += UNROLL * WIDTH) {
        for (int k = 0; k < UNROLL; k++) {
            const f32x exp_part = exponential(load(logits, c + k * WIDTH, type) - maximum);
            store(exponentials, c + k * WIDTH, exp_part, FP32);
            sums[k] += exp_part;
        }
    }
    for (long c = n_unrolled; c < n_full; c += WIDTH) {
        const f32x exp_part = exponential(load(logits, c, type) - maximum);
        store(exponentials, c, exp_part, FP32);
        sums[0] += exp_part;
    }
    float sum = reduce_add(sums[0]) + reduce_add(sums[1]) + (reduce_add(sums[2]) + reduce_add(sums[3]));
    for (long c = n_full; c < V; c++)
        sum += exponentials[c] = exponential(broadcast(load_scalar(logits, c, type) - maximum))[0];

    const float inverse_sum = 1 / sum;
    for (long c = 0; c < n_full; c += WIDTH) store(logits, c, load(exponentials, c, FP32) * inverse_sum, type);
    for (long c = n_full; c < V; c++) store_scalar(logits, c, exponentials[c] * inverse_sum, type);
    store_scalar(logits, target, exponentials[target] * inverse_sum - 1, type);
    return logf(sum) - target_logit;
}

// logits (n, V) of `type`, targets (n); losses (n) is written. workspace: (n_threads, V) floats.
void cross_entropy_forward_backward(
    void *logits, int64_t n, int64_t V, int32_t type, const int64_t *targets, float *losses, float *workspace,
    int32_t n_threads
) {
#pragma omp parallel num_threads(n_threads)
    {
        float *exponentials = workspace + thread_index() * V;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n; i++)
            losses[i] = type == FP32 ? cross_entropy_row((float *)logits + i * V, V, targets[i], FP32, exponentials)
                                     : cross_entropy_row((uint16_t *)logits + i * V, V, targets[i], BF16, exponentials);
    }
}
