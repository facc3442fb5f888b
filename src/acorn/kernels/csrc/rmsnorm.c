// RMSNorm over the residual stream (Zhang and Sennrich 2019), forward and backward. Called by block.py.
//
// PyTorch computes it as several operations forward and backward, each of which reads and writes an fp32 tensor in
// memory. Here it is one operation, and a row stays in the L1 cache. Letters for sizes are those of model/gpt.py.

#include "norm.h"

// y (rows, C) = RMSNorm of x (rows, C).
void rmsnorm_forward(
    const void *x, int32_t x_type, const float *weight, float eps, int64_t rows, int64_t C, void *y, int32_t y_type,
    int32_t n_threads
) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long row = 0; row < rows; row++) {
        const long at = row * C;
        if (x_type == FP32 && y_type == BF16) rmsnorm_row(x, at, FP32, weight, eps, C, y, at, BF16);
        else rmsnorm_row(x, at, x_type, weight, eps, C, y, at, y_type);
    }
}

// Writes grad_x (rows, C). grad_weights (n_threads, C) must be zero; each thread adds its part of the weight's gradient
// to its row.
void rmsnorm_backward(
    const void *x, int32_t x_type, const float *weight, float eps, int64_t rows, int64_t C, const void *grad_y,
    int32_t y_type, void *grad_x, float *grad_weights, int32_t n_threads
) {
#pragma omp parallel num_threads(n_threads)
    {
        float *grad_weight = grad_weights + thread_index() * C;
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++) {
            const long at = row * C;
            if (x_type == FP32 && y_type == BF16)
                rmsnorm_row_backward(x, at, FP32, weight, eps, C, grad_y, at, BF16, grad_x, grad_weight);
            else rmsnorm_row_backward(x, at, x_type, weight, eps, C, grad_y, at, y_type, grad_x, grad_weight);
        }
    }
}
