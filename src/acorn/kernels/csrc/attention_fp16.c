// Causal attention with fp16 matmuls, forward and backward, for training. Called by attention_fp16.py.
//
// A thread processes QUERY_BLOCK queries of a head at a time. Their scores, for the keys up to the last of these
// queries, stay in the L2 cache until they have become weights and been multiplied with the values. Weights are not
// stored for the backward: it recomputes them, which is cheaper than reading them from memory (Dao et al. 2022). It
// also recomputes which weights were dropped, a function of a seed and the weight's position. Keys and values are
// packed once for all queries of a head, so later tokens in the same panel or slice affect how earlier ones are
// rounded, but nothing else. Letters for sizes are those of model/gpt.py.

#include "softmax.h"
#include "matmul_fp16.h"

enum { QUERY_BLOCK = 48 };

// A tensor of heads (B, H or K, T, D), with the strides of sequences, heads and tokens in elements.
typedef struct {
    float *values;
    int64_t sequence, head, token;
} heads;

static inline float *head_pointer(heads x, long b, long h) { return x.values + b * x.sequence + h * x.head; }

static inline strided head_matrix(heads x, long b, long h) { return (strided){head_pointer(x, b, h), x.token, 1}; }

static inline strided transposed(strided x) { return (strided){x.values, x.column, x.row}; }

// Takes `bytes` from a thread's workspace; advances `memory` to the rest of it.
static void *allocate(char **memory, long bytes) {
    void *start = *memory;
    *memory += (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    return start;
}

// The number of slices in a packed matrix (K, N).
static long slice_count(long K, long N) {
    return (K + SLICE_DEPTH - 1) / SLICE_DEPTH * ((N + PANEL_COLUMNS - 1) / PANEL_COLUMNS);
}

static packed_matrix allocate_packed(long K, long N, char **memory) {
    uint16_t *values = allocate(memory, slice_count(K, N) * SLICE_ELEMENTS * sizeof *values);
    float *inverse_scales = allocate(memory, slice_count(K, N) * sizeof *inverse_scales);
    return (packed_matrix){values, inverse_scales, (K + SLICE_DEPTH - 1) / SLICE_DEPTH};
}

// c (M, N) = a (M, K) b (K, N), on one thread. b: the first K rows and N columns of a packed matrix. packed_a:
// workspace.
static void matmul_packed(
    strided a, packed_matrix b, uint32_t *packed_a, float *c, long c_row, long M, long N, long K
) {
    for (long n = 0; n < N; n += BLOCK_COLUMNS)
        for (long k = 0; k < K; k += BLOCK_DEPTH) {
            const strided part = {a.values + k * a.column, a.row, a.column};
            const packed_matrix b_part = packed_at(b, k, n);
            const long columns = min_long(BLOCK_COLUMNS, N - n), depth = min_long(BLOCK_DEPTH, K - k);
            matmul_packed_worker(part, b_part, packed_a, c + n, c_row, M, columns, depth, k > 0, NO_EPILOGUE, 0, 1);
        }
}

// Workspace of a thread, for one head at a time.
typedef struct {
    matmul_workspace matmul;
    packed_matrix keys_transposed, keys, values_transposed, values; // (D, T) or (T, D)
    float *row, *weights, *grads; // (T), (QUERY_BLOCK, T), (QUERY_BLOCK, T)
} attention_workspace;

static attention_workspace attention_workspace_in(char *memory, long T, long D) {
    attention_workspace work;
    work.matmul = matmul_workspace_in(allocate(&memory, WORKSPACE_BYTES));
    work.keys_transposed = allocate_packed(D, T, &memory), work.keys = allocate_packed(T, D, &memory);
    work.values_transposed = allocate_packed(D, T, &memory), work.values = allocate_packed(T, D, &memory);
    work.row = allocate(&memory, (T + WIDTH) * sizeof(float));
    work.weights = allocate(&memory, QUERY_BLOCK * T * sizeof(float));
    work.grads = allocate(&memory, QUERY_BLOCK * T * sizeof(float));
    return work;
}

// An upper bound of a thread's workspace, in bytes.
int64_t attention_workspace_bytes(int64_t T, int64_t D) {
    const long slices = 2 * slice_count(D, T) + 2 * slice_count(T, D);
    const long packed_bytes = slices * (SLICE_ELEMENTS * 2 + 4), rows = (T + WIDTH) * 4 + 2 * QUERY_BLOCK * T * 4;
    return (WORKSPACE_BYTES + packed_bytes + rows) / CACHE_LINE * CACHE_LINE + 16 * CACHE_LINE;
}

// work->weights (queries, end) = softmax(q k^T * scale, causal), for `queries` queries q (queries, D) from `begin` on.
static void compute_weights(
    strided q, long begin, long queries, long end, long D, float scale, const attention_workspace *work
) {
    matmul_packed(q, work->keys_transposed, work->matmul.packed_a, work->weights, end, queries, end, D);
    for (long i = 0; i < queries; i++) softmax_row(work->weights, i * end, FP32, begin + i + 1, end, scale, work->row);
}

// Dropout of attention weights (Srivastava et al. 2014): zero with probability `threshold` / 2^32, else times `scale`.
typedef struct {
    uint64_t seed;
    uint32_t threshold; // 0: no dropout
    float scale;
} dropout;

// A 64-bit hash, each bit of which depends on every bit of x: the finalizer of SplitMix64 (Steele, Lea and Flood 2014).
static inline uint64_t mix64(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

// Dropout of the first n weights of a row, or of their gradients. query: the row's index among the queries of all
// heads.
static void dropout_row(float *row, long n, long query, dropout drop) {
    const uint64_t key = mix64(drop.seed + query * 0x9e3779b97f4a7c15);
    u32x positions;
    for (int i = 0; i < WIDTH; i++) positions[i] = i;
    for (long j = 0; j < n; j += WIDTH) {
        // A 32-bit hash (Wellons 2018) of the position and both halves of the key.
        u32x x = (positions + (uint32_t)j) ^ (uint32_t)key;
        x = (x ^ x >> 16) * 0x7feb352du;
        x = ((x ^ x >> 15) + (uint32_t)(key >> 32)) * 0x846ca68bu;
        x = x ^ x >> 16;
        const i32x kept = x >= drop.threshold;
        const f32x scaled = load_partial(row, j, n - j, FP32) * drop.scale;
        store_partial(row, j, n - j, (f32x)(kept & (i32x)scaled), FP32);
    }
}

// The same for `queries` rows of a head, (queries, end), from query `begin` on. first_query: the index of the head's
// first query among the queries of all heads.
static void dropout_rows(float *rows, long begin, long queries, long end, long first_query, dropout drop) {
    if (!drop.threshold) return;
    for (long i = 0; i < queries; i++) dropout_row(rows + i * end, begin + i + 1, first_query + begin + i, drop);
}

// y (B, H, T, D) = dropout(softmax(q k^T * scale, causal)) v. q: (B, H, T, D); k and v: (B, K, T, D). Returns 0, or 1
// if memory could not be allocated.
int32_t attention_forward(
    heads q, heads k, heads v, heads y, int64_t B, int64_t H, int64_t K, int64_t T, int64_t D, float scale,
    dropout drop, int32_t n_threads
) {
    const long bytes = attention_workspace_bytes(T, D), group = H / K;
    char *allocation = malloc(n_threads * bytes + CACHE_LINE), *memory = align_to_cache_line(allocation);
    if (!allocation) return 1;
#pragma omp parallel num_threads(n_threads)
    {
        const attention_workspace work = attention_workspace_in(memory + thread_index() * bytes, T, D);
        long packed_kv_head = -1;
#pragma omp for schedule(static) collapse(2)
        for (long bh = 0; bh < B * H; bh++)
            for (long begin = 0; begin < T; begin += QUERY_BLOCK) {
                const long b = bh / H, h = bh % H, kv = h / group;
                if (packed_kv_head != b * K + kv) {
                    packed_kv_head = b * K + kv;
                    pack_b(transposed(head_matrix(k, b, kv)), T, D, work.keys_transposed, 0, 1);
                    pack_b(head_matrix(v, b, kv), D, T, work.values, 0, 1);
                }
                const long queries = min_long(QUERY_BLOCK, T - begin), end = begin + queries;
                const strided q_block = {head_pointer(q, b, h) + begin * q.token, q.token, 1};
                float *y_block = head_pointer(y, b, h) + begin * y.token;
                compute_weights(q_block, begin, queries, end, D, scale, &work);
                dropout_rows(work.weights, begin, queries, end, bh * T, drop);
                const strided weights = {work.weights, end, 1};
                matmul_packed(weights, work.values, work.matmul.packed_a, y_block, y.token, queries, D, end);
            }
    }
    free(allocation);
    return 0;
}

// Writes the gradients of q, k and v. A thread processes all query heads of a key and value head, because their
// gradients are summed.
int32_t attention_backward(
    heads q, heads k, heads v, heads grad_y, heads grad_q, heads grad_k, heads grad_v, int64_t B, int64_t H, int64_t K,
    int64_t T, int64_t D, float scale, dropout drop, int32_t n_threads
) {
    const long bytes = attention_workspace_bytes(T, D), group = H / K;
    char *allocation = malloc(n_threads * bytes + CACHE_LINE), *memory = align_to_cache_line(allocation);
    if (!allocation) return 1;
#pragma omp parallel num_threads(n_threads)
    {
        const attention_workspace work = attention_workspace_in(memory + thread_index() * bytes, T, D);
        const matmul_workspace *matmul = &work.matmul;
#pragma omp for schedule(static)
        for (long bk = 0; bk < B * K; bk++) {
            const long b = bk / K, kv = bk % K;
            pack_b(transposed(head_matrix(k, b, kv)), T, D, work.keys_transposed, 0, 1);
            pack_b(head_matrix(k, b, kv), D, T, work.keys, 0, 1);
            pack_b(transposed(head_matrix(v, b, kv)), T, D, work.values_transposed, 0, 1);
            float *grad_k_head = head_pointer(grad_k, b, kv), *grad_v_head = head_pointer(grad_v, b, kv);
            for (long t = 0; t < T; t++) {
                memset(grad_k_head + t * grad_k.token, 0, D * sizeof *grad_k_head);
                memset(grad_v_head + t * grad_v.token, 0, D * sizeof *grad_v_head);
            }
            for (long h = kv * group; h < (kv + 1) * group; h++)
                for (long begin = 0; begin < T; begin += QUERY_BLOCK) {
                    const long queries = min_long(QUERY_BLOCK, T - begin), end = begin + queries;
                    const strided q_block = {head_pointer(q, b, h) + begin * q.token, q.token, 1};
                    const strided grad_y_block = {head_pointer(grad_y, b, h) + begin * grad_y.token, grad_y.token, 1};
                    const strided weights = {work.weights, end, 1}, grads = {work.grads, end, 1};
                    float *grad_q_block = head_pointer(grad_q, b, h) + begin * grad_q.token;
                    compute_weights(q_block, begin, queries, end, D, scale, &work);
                    matmul_packed(
                        grad_y_block, work.values_transposed, matmul->packed_a, work.grads, end, queries, end, D
                    );
                    dropout_rows(work.grads, begin, queries, end, (b * H + h) * T, drop);
                    for (long i = 0; i < queries; i++)
                        softmax_row_backward(
                            work.weights, work.grads, i * end, FP32, begin + i + 1, end, scale, work.grads
                        );
                    dropout_rows(work.weights, begin, queries, end, (b * H + h) * T, drop);
                    matmul_worker(
                        transposed(weights), grad_y_block, grad_v_head, grad_v.token, end, D, queries, 1, NO_EPILOGUE,
                        matmul, 0, 1
                    );
                    matmul_packed(grads, work.keys, matmul->packed_a, grad_q_block, grad_q.token, queries, D, end);
                    matmul_worker(
                        transposed(grads), q_block, grad_k_head, grad_k.token, end, D, queries, 1, NO_EPILOGUE, matmul,
                        0, 1
                    );
                }
        }
    }
    free(allocation);
    return 0;
}
