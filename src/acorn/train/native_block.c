// What a block does beside its products, for CPUs: RMSNorm, the norm and rotation of queries and keys, the softmax of
// attention, SwiGLU and GELU, each with its backward pass. Called by native_block.py.
//
// PyTorch does each as five to ten operations, and as many backwards, with a pass over memory and an fp32 tensor for
// every one. Here each is one pass; a row stays in the first cache meanwhile. Letters for sizes are those of
// model/gpt.py.

#include "causal_softmax.h"

// y = x / sqrt(mean(x^2) + eps) * weight, for one row of n numbers.
static inline __attribute__((always_inline)) void normalize(
    const void *x, long at, int x_type, const float *weight, float eps, long n, void *y, long y_at, int y_type
) {
    floats squares = {0};
    for (long c = 0; c < n; c += WIDTH) {
        const floats value = load_some(x, at + c, n - c, x_type);
        squares += value * value;
    }
    const float scale = 1 / sqrtf(total(squares) / n + eps);
    for (long c = 0; c < n; c += WIDTH) {
        const floats value = load_some(x, at + c, n - c, x_type) * scale;
        store_some(y, y_at + c, n - c, value * load_some(weight, c, n - c, FP32), y_type);
    }
}

// The gradient by x of one row, from that by y; the gradient by the weight is added to `grad_weight`.
static inline __attribute__((always_inline)) void normalize_backward(
    const void *x, long at, int x_type, const float *weight, float eps, long n, const void *grad_y, long grad_y_at,
    int y_type, void *grad_x, float *grad_weight
) {
    floats squares = {0}, products = {0};
    for (long c = 0; c < n; c += WIDTH) {
        const floats value = load_some(x, at + c, n - c, x_type);
        squares += value * value;
        products += value * load_some(grad_y, grad_y_at + c, n - c, y_type) * load_some(weight, c, n - c, FP32);
    }
    const float scale = 1 / sqrtf(total(squares) / n + eps), shift = total(products) * scale * scale / n;
    for (long c = 0; c < n; c += WIDTH) {
        const floats value = load_some(x, at + c, n - c, x_type), grad = load_some(grad_y, grad_y_at + c, n - c, y_type);
        const floats of_weight = load_some(grad_weight, c, n - c, FP32) + grad * value * scale;
        store_some(grad_weight, c, n - c, of_weight, FP32);
        const floats of_x = (grad * load_some(weight, c, n - c, FP32) - value * shift) * scale;
        store_some(grad_x, at + c, n - c, of_x, x_type);
    }
}

// y (rows, C) = RMSNorm of x (rows, C).
void rms_norm(
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
void rms_norm_backward(
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

// Turns each pair (first half, second half) of a head by its position's angle, or back.
static inline __attribute__((always_inline)) void turn_head(
    const void *x, long at, int x_type, const float *cosine, const float *sine, long D, int back, void *y, long y_at,
    int y_type
) {
    const long half = D / 2;
    for (long i = 0; i < half; i += WIDTH) {
        const long n = half - i;
        const floats first = load_some(x, at + i, n, x_type), second = load_some(x, at + half + i, n, x_type);
        const floats c = load_some(cosine, i, n, FP32);
        const floats s = back ? -load_some(sine, i, n, FP32) : load_some(sine, i, n, FP32);
        store_some(y, y_at + i, n, first * c - second * s, y_type);
        store_some(y, y_at + half + i, n, second * c + first * s, y_type);
    }
}

// y (B, H, T, D) = x (B, T, H, D), each head normed, unless `weight` is NULL, and turned. cosines, sines: (T, D).
void place_heads(
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
                    normalize(x, at, type, weight, eps, D, normed, 0, FP32);
                    turn_head(normed, 0, FP32, cosines + t * D, sines + t * D, D, 0, y, y_at, type);
                } else turn_head(x, at, type, cosines + t * D, sines + t * D, D, 0, y, y_at, type);
            }
        }
    }
}

void place_heads_backward(
    const void *x, int32_t type, const float *weight, float eps, const float *cosines, const float *sines, int64_t B,
    int64_t T, int64_t H, int64_t D, const void *grad_y, void *grad_x, float *grad_weights, int32_t n_threads
) {
#pragma omp parallel num_threads(n_threads)
    {
        float turned[D], *grad_weight = grad_weights + this_thread() * D;
#pragma omp for schedule(static)
        for (long token = 0; token < B * T; token++) {
            const long b = token / T, t = token % T;
            for (long h = 0; h < H; h++) {
                const long at = (token * H + h) * D, y_at = ((b * H + h) * T + t) * D;
                if (weight) {
                    turn_head(grad_y, y_at, type, cosines + t * D, sines + t * D, D, 1, turned, 0, FP32);
                    normalize_backward(x, at, type, weight, eps, D, turned, 0, FP32, grad_x, grad_weight);
                } else turn_head(grad_y, y_at, type, cosines + t * D, sines + t * D, D, 1, grad_x, at, type);
            }
        }
    }
}

// Scores (N, Q, K) become softmax(scores * scale) of the keys that each query sees: query q those up to K - Q + q. The
// others' weights are zero.
void causal_softmax(void *scores, int32_t type, int64_t N, int64_t Q, int64_t K, float scale, int32_t n_threads) {
#pragma omp parallel num_threads(n_threads)
    {
        float room[K + WIDTH];
#pragma omp for schedule(static)
        for (long row = 0; row < N * Q; row++) {
            const long seen = K - Q + row % Q + 1;
            if (type == FP32) softmax_row(scores, row * K, FP32, seen, K, scale, room);
            else softmax_row(scores, row * K, BF16, seen, K, scale, room);
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

// y = silu(gate) * up, all of n numbers.
void swiglu(const void *gate, const void *up, int32_t type, int64_t n, void *y, int32_t n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long i = 0; i < n; i += WIDTH) {
        const floats g = load_some(gate, i, n - i, type), u = load_some(up, i, n - i, type);
        store_some(y, i, n - i, g * sigmoid(g) * u, type);
    }
}

void swiglu_backward(
    const void *gate, const void *up, int32_t type, int64_t n, const void *grad_y, void *grad_gate, void *grad_up,
    int32_t n_threads
) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long i = 0; i < n; i += WIDTH) {
        const floats g = load_some(gate, i, n - i, type), u = load_some(up, i, n - i, type);
        const floats grad = load_some(grad_y, i, n - i, type), share = sigmoid(g);
        store_some(grad_gate, i, n - i, grad * u * share * (1 + g * (1 - share)), type);
        store_some(grad_up, i, n - i, grad * g * share, type);
    }
}

// y = GELU(x), both of n numbers.
void gelu(const void *x, int32_t type, int64_t n, void *y, int32_t n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long i = 0; i < n; i += WIDTH) store_some(y, i, n - i, gelu_of(load_some(x, i, n - i, type)), type);
}

void gelu_backward(const void *x, int32_t type, int64_t n, const void *grad_y, void *grad_x, int32_t n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long i = 0; i < n; i += WIDTH) {
        const floats value = load_some(x, i, n - i, type), grad = load_some(grad_y, i, n - i, type);
        store_some(grad_x, i, n - i, grad * gelu_derivative(value), type);
    }
}
