// SwiGLU (Shazeer 2020), forward and backward. Called by block.py.

#include "activations.h"

// y = silu(gate) * up, all of n elements.
void swiglu_forward(const void *gate, const void *up, int32_t type, int64_t n, void *y, int32_t n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long i = 0; i < n; i += WIDTH) {
        const f32x g = load_partial(gate, i, n - i, type), u = load_partial(up, i, n - i, type);
        store_partial(y, i, n - i, g * sigmoid(g) * u, type);
    }
}

void swiglu_backward(
    const void *gate, const void *up, int32_t type, int64_t n, const void *grad_y, void *grad_gate, void *grad_up,
    int32_t n_threads
) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long i = 0; i < n; i += WIDTH) {
        const f32x g = load_partial(gate, i, n - i, type), u = load_partial(up, i, n - i, type);
        const f32x grad = load_partial(grad_y, i, n - i, type), share = sigmoid(g);
        store_partial(grad_gate, i, n - i, grad * u * share * (1 + g * (1 - share)), type);
        store_partial(grad_up, i, n - i, grad * g * share, type);
    }
}
