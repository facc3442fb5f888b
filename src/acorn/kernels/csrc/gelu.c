// GPT-2's GELU, forward and backward. Called by block.py.

#include "activations.h"

// y = GELU(x), both of n elements.
void gelu_forward(const void *x, int32_t type, int64_t n, void *y, int32_t n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long i = 0; i < n; i += WIDTH) store_partial(y, i, n - i, gelu(load_partial(x, i, n - i, type)), type);
}

void gelu_backward(const void *x, int32_t type, int64_t n, const void *grad_y, void *grad_x, int32_t n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long i = 0; i < n; i += WIDTH) {
        const f32x value = load_partial(x, i, n - i, type), grad = load_partial(grad_y, i, n - i, type);
        store_partial(grad_x, i, n - i, grad * gelu_derivative(value), type);
    }
}
