// RMSNorm and rotary positions of queries and keys, forward and backward. Called by block.py.

#include "norm.h"
#include "rope.h"

// y (B, H, T, D) = x (B, T, H, D), with each head normalized (unless `weight` is NULL) and rotated. cosines, sines: (T,
// D).
void qk_norm_rope_forward(
    const void *x, int32_t type, const float *weight, float eps, const float *cosines, const float *sines, int64_t B,
    int64_t T, int64_t H, int64_t D, void *y, int32_t n_threads
) {
#pragma omp parallel num_threads(n_threads)
    {
        float normed[D];
#pragma omp for schedule(static)
        for (long token = 0; token < B * T; token++) {
            const long b = token / T, t = token % T;
            for (long h = 0; h < H; h++) {
                const long at = (token * H + h) * D, y_at = ((b * H + h) * T + t) * D;
                if (weight) {
                    rmsnorm_row(x, at, type, weight, eps, D, normed, 0, FP32);
                    rotate_head(normed, 0, FP32, cosines + t * D, sines + t * D, D, 0, y, y_at, type);
                } else rotate_head(x, at, type, cosines + t * D, sines + t * D, D, 0, y, y_at, type);
            }
        }
    }
}

void qk_norm_rope_backward(
    const void *x, int32_t type, const float *weight, float eps, const float *cosines, const float *sines, int64_t B,
    int64_t T, int64_t H, int64_t D, const void *grad_y, void *grad_x, float *grad_weights, int32_t n_threads
) {
#pragma omp parallel num_threads(n_threads)
    {
        float rotated[D], *grad_weight = grad_weights + thread_index() * D;
#pragma omp for schedule(static)
        for (long token = 0; token < B * T; token++) {
            const long b = token / T, t = token % T;
            for (long h = 0; h < H; h++) {
                const long at = (token * H + h) * D, y_at = ((b * H + h) * T + t) * D;
                if (weight) {
                    rotate_head(grad_y, y_at, type, cosines + t * D, sines + t * D, D, 1, rotated, 0, FP32);
                    rmsnorm_row_backward(x, at, type, weight, eps, D, rotated, 0, FP32, grad_x, grad_weight);
                } else rotate_head(grad_y, y_at, type, cosines + t * D, sines + t * D, D, 1, grad_x, at, type);
            }
        }
    }
}
