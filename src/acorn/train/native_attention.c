// Causal attention whose products are in fp16, for training. Called by native_attention.py.
//
// A thread takes a head, QUERIES queries at a time: their scores, of the keys up to the last of them, stay in the second
// cache until they are weights and have been multiplied by the values. None are kept: the backward pass finds them again,
// which is less work than to fetch them from memory (Dao et al. 2022). Letters for sizes are those of model/gpt.py.

#include "causal_softmax.h"
#include "fp16_product.h"

enum { QUERIES = 192 };

// Heads of several sequences, (B, H or K, T, D): steps between sequences, heads and tokens, in numbers.
typedef struct {
    float *numbers;
    int64_t sequence, head, token;
} heads;

static inline float *head_of(heads x, long b, long h) { return x.numbers + b * x.sequence + h * x.head; }

// Memory of a thread: rooms, a row of softmax, and scores twice. As native_attention.py tells it beforehand.
static long thread_bytes(long T) { return (ROOM + (T + WIDTH) * 4 + 2 * QUERIES * T * 4 + 63) / 64 * 64; }

// The weights of `queries` queries from `begin` on, (queries, end).
static void weigh(
    matrix q, matrix k, long begin, long queries, long end, long D, float scale, float *weights, float *row,
    const rooms *room
) {
    const matrix turned = {k.numbers, k.column, k.row};
    multiply_one(q, turned, weights, end, queries, end, D, 0, NOTHING, room, 0, 1);
    for (long i = 0; i < queries; i++) softmax_row(weights, i * end, FP32, begin + i + 1, end, scale, row);
}

// y (B, H, T, D) = softmax(q k^T * scale, causal) v. q: (B, H, T, D); k and v: (B, K, T, D). Returns 0, or 1 where memory
// ran out.
int32_t causal_attention(
    heads q, heads k, heads v, heads y, int64_t B, int64_t H, int64_t K, int64_t T, int64_t D, float scale,
    int32_t n_threads
) {
    const long bytes = thread_bytes(T);
    char *memory = aligned_alloc(64, n_threads * bytes);
    if (!memory) return 1;
#pragma omp parallel for num_threads(n_threads) schedule(static) collapse(2)
    for (long bh = 0; bh < B * H; bh++)
        for (long begin = 0; begin < T; begin += QUERIES) {
            const long b = bh / H, h = bh % H, kv = h / (H / K);
            const rooms room = rooms_in(memory + this_thread() * bytes);
            float *row = (float *)(memory + this_thread() * bytes + ROOM), *weights = row + T + WIDTH;
            const matrix keys = {head_of(k, b, kv), k.token, 1}, values = {head_of(v, b, kv), v.token, 1};
            const long queries = least(QUERIES, T - begin), end = begin + queries;
            const matrix of_q = {head_of(q, b, h) + begin * q.token, q.token, 1}, of_weights = {weights, end, 1};
            weigh(of_q, keys, begin, queries, end, D, scale, weights, row, &room);
            multiply_one(
                of_weights, values, head_of(y, b, h) + begin * y.token, y.token, queries, D, end, 0, NOTHING, &room, 0, 1
            );
        }
    free(memory);
    return 0;
}

// The gradients by q, k and v from that by y. A thread takes all the query heads of a key head, whose gradients add up.
int32_t causal_attention_backward(
    heads q, heads k, heads v, heads grad_y, heads grad_q, heads grad_k, heads grad_v, int64_t B, int64_t H, int64_t K,
    int64_t T, int64_t D, float scale, int32_t n_threads
) {
    const long bytes = thread_bytes(T);
    char *memory = aligned_alloc(64, n_threads * bytes);
    if (!memory) return 1;
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (long bk = 0; bk < B * K; bk++) {
        const long b = bk / K, kv = bk % K, group = H / K;
        const rooms room = rooms_in(memory + this_thread() * bytes);
        float *row = (float *)(memory + this_thread() * bytes + ROOM);
        float *weights = row + T + WIDTH, *grads = weights + QUERIES * T;
        const matrix keys = {head_of(k, b, kv), k.token, 1}, values_turned = {head_of(v, b, kv), 1, v.token};
        float *to_k = head_of(grad_k, b, kv), *to_v = head_of(grad_v, b, kv);
        for (long t = 0; t < T; t++) {
            memset(to_k + t * grad_k.token, 0, D * sizeof *to_k);
            memset(to_v + t * grad_v.token, 0, D * sizeof *to_v);
        }
        for (long h = kv * group; h < (kv + 1) * group; h++)
            for (long begin = 0; begin < T; begin += QUERIES) {
                const long queries = least(QUERIES, T - begin), end = begin + queries;
                const matrix of_q = {head_of(q, b, h) + begin * q.token, q.token, 1};
                const matrix of_y = {head_of(grad_y, b, h) + begin * grad_y.token, grad_y.token, 1};
                const matrix weights_turned = {weights, 1, end}, by_scores = {grads, end, 1}, turned = {grads, 1, end};
                weigh(of_q, keys, begin, queries, end, D, scale, weights, row, &room);
                multiply_one(weights_turned, of_y, to_v, grad_v.token, end, D, queries, 1, NOTHING, &room, 0, 1);
                multiply_one(of_y, values_turned, grads, end, queries, end, D, 0, NOTHING, &room, 0, 1);
                for (long i = 0; i < queries; i++)
                    softmax_row_backward(weights, grads, i * end, FP32, begin + i + 1, end, scale, grads);
                multiply_one(
                    by_scores, keys, head_of(grad_q, b, h) + begin * grad_q.token, grad_q.token, queries, D, end, 0,
                    NOTHING, &room, 0, 1
                );
                multiply_one(turned, of_q, to_k, grad_k.token, end, D, queries, 1, NOTHING, &room, 0, 1);
            }
    }
    free(memory);
    return 0;
}
