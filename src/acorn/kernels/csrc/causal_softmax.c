// Causal softmax of attention scores, forward and backward. Called by block.py.

#include "softmax.h"

// In place: scores (N, Q, K) become softmax(scores * scale) over the keys that a query may attend to: keys 0 .. K - Q +
// q for query q. The weights of later keys are zero.
void causal_softmax_forward(
    void *scores, int32_t type, int64_t N, int64_t Q, int64_t K, float scale, int32_t n_threads
) {
#pragma omp parallel num_threads(n_threads)
    {
        float workspace[K + WIDTH];
#pragma omp for schedule(static)
        for (long row = 0; row < N * Q; row++) {
            const long n_visible = K - Q + row % Q + 1;
            if (type == FP32) softmax_row(scores, row * K, FP32, n_visible, K, scale, workspace);
            else softmax_row(scores, row * K, BF16, n_visible, K, scale, workspace);
        }
    }
}

void causal_softmax_backward(
    const void *weights, const void *grad, int32_t type, int64_t N, int64_t Q, int64_t K, float scale,
    void *grad_scores, int32_t n_threads
) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long row = 0; row < N * Q; row++) {
        const long n_visible = K - Q + row % Q + 1;
        if (type == FP32) softmax_row_backward(weights, grad, row * K, FP32, n_visible, K, scale, grad_scores);
        else softmax_row_backward(weights, grad, row * K, BF16, n_visible, K, scale, grad_scores);
    }
}
