// RMSNorm over the stream (Zhang and Sennrich 2019), forward and backward. Called by block.py.
//
// PyTorch does it as several operations, and as many backwards, with a pass over memory and an fp32 tensor for every
// one. Here it is one; a row stays in the first cache meanwhile. Letters for sizes are those of model/gpt.py.

#include "norm.h"

// y (rows, C) = RMSNorm of x (rows, C).
void rmsnorm_forward(
    const void *x, int32_t x_type, const float *weight, float eps, int64_t rows, int64_t C, void *y, int32_t y_type,
    int32_t n_threads
) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long row = 0; row < rows; row++) {
        const long at = row * C;
        if (x_type == FP32 && y_type == BF16) normalize(x, at, FP32, weight, eps, C, y, at, BF16);
        else normalize(x, at, x_type, weight, eps, C, y, at, y_type);
    }
}

// grad_x (rows, C); grad_weights (n_threads, C), zero before, get each thread's share of the weight's gradient.
void rmsnorm_backward(
    const void *x, int32_t x_type, const float *weight, float eps, int64_t rows, int64_t C, const void *grad_y,
    int32_t y_type, void *grad_x, float *grad_weights, int32_t n_threads
) {
#pragma omp parallel num_threads(n_threads)
    {
        float *grad_weight = grad_weights + this_thread() * C;
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++) {
            const long at = row * C;
            if (x_type == FP32 && y_type == BF16)
                normalize_backward(x, at, FP32, weight, eps, C, grad_y, at, BF16, grad_x, grad_weight);
            else normalize_backward(x, at, x_type, weight, eps, C, grad_y, at, y_type, grad_x, grad_weight);
        }
    }
}
