// Softmax of attention's scores, forward and backward. Called by block.py.

#include "softmax.h"

// Scores (N, Q, K) become softmax(scores * scale) of the keys that each query sees: query q those up to K - Q + q. The
// others' weights are zero.
void causal_softmax_forward(
    void *scores, int32_t type, int64_t N, int64_t Q, int64_t K, float scale, int32_t n_threads
) {
#pragma omp parallel num_threads(n_threads)
    {
        float workspace[K + WIDTH];
#pragma omp for schedule(static)
        for (long row = 0; row < N * Q; row++) {
            const long seen = K - Q + row % Q + 1;
            if (type == FP32) softmax_row(scores, row * K, FP32, seen, K, scale, workspace);
            else softmax_row(scores, row * K, BF16, seen, K, scale, workspace);
        }
    }
}

void causal_softmax_backward(
    const void *weights, const void *grad, int32_t type, int64_t N, int64_t Q, int64_t K, float scale,
    void *grad_scores, int32_t n_threads
) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long row = 0; row < N * Q; row++) {
        const long seen = K - Q + row % Q + 1;
        if (type == FP32) softmax_row_backward(weights, grad, row * K, FP32, seen, K, scale, grad_scores);
        else softmax_row_backward(weights, grad, row * K, BF16, seen, K, scale, grad_scores);
    }
}
