// Causal attention whose matmuls are in fp16, for training. Called by attention_fp16.py.
//
// A thread takes QUERIES queries of a head at a time: their scores, of the keys up to the last of them, stay in the
// second cache until they are weights and have been multiplied by the values. None are kept: the backward pass finds
// them again, which is less work than to fetch them from memory (Dao et al. 2022). Keys and values are packed once for
// all queries of a head: tokens after a query, within a panel or slice, have a say in how those before it are rounded,
// and in nothing else. Dropped weights are found again, too: which they are is a function of a seed and their places.
// Letters for sizes are those of model/gpt.py.

#include "softmax.h"
#include "matmul_fp16.h"

enum { QUERIES = 48 };

// Heads of several sequences, (B, H or K, T, D): steps between sequences, heads and tokens, in elements.
typedef struct {
    float *values;
    int64_t sequence, head, token;
} heads;

static inline float *head_of(heads x, long b, long h) { return x.values + b * x.sequence + h * x.head; }

static inline strided rows_of(heads x, long b, long h) { return (strided){head_of(x, b, h), x.token, 1}; }

static inline strided transposed(strided x) { return (strided){x.values, x.column, x.row}; }

// Workspace of a thread, taken piece by piece from what is left of it.
static void *piece(char **memory, long bytes) {
    void *start = *memory;
    *memory += (bytes + LINE - 1) / LINE * LINE;
    return start;
}

// Slices of a packed matrix (K, N).
static long slices_of(long K, long N) {
    return (K + SLICE_DEPTH - 1) / SLICE_DEPTH * ((N + PANEL_COLUMNS - 1) / PANEL_COLUMNS);
}

static packed packed_in(long K, long N, char **memory) {
    uint16_t *values = piece(memory, slices_of(K, N) * SLICE_VALUES * sizeof *values);
    return (packed){values, piece(memory, slices_of(K, N) * sizeof(float)), (K + SLICE_DEPTH - 1) / SLICE_DEPTH};
}

// c (M, N) = a (M, K) b (K, N). b: packed as a whole, of which these may be the first rows or columns. left: workspace.
static void matmul_packed(strided a, packed b, uint32_t *left, float *c, long c_row, long M, long N, long K) {
    for (long n = 0; n < N; n += BLOCK_COLUMNS)
        for (long k = 0; k < K; k += BLOCK_DEPTH) {
            const strided part = {a.values + k * a.column, a.row, a.column};
            const packed by = packed_from(b, k, n);
            const long columns = least(BLOCK_COLUMNS, N - n), depth = least(BLOCK_DEPTH, K - k);
            matmul_rows(part, by, left, c + n, c_row, M, columns, depth, k > 0, NO_EPILOGUE, 0, 1);
        }
}

// What a thread needs for a head.
typedef struct {
    matmul_workspace matmul;
    packed keys_transposed, keys, values_transposed, values; // (D, T) or (T, D)
    float *row, *weights, *grads; // (T), (QUERIES, T), (QUERIES, T)
} attention_workspace;

static attention_workspace attention_workspace_in(char *memory, long T, long D) {
    attention_workspace at;
    at.matmul = matmul_workspace_in(piece(&memory, WORKSPACE_BYTES));
    at.keys_transposed = packed_in(D, T, &memory), at.keys = packed_in(T, D, &memory);
    at.values_transposed = packed_in(D, T, &memory), at.values = packed_in(T, D, &memory);
    at.row = piece(&memory, (T + WIDTH) * sizeof(float));
    at.weights = piece(&memory, QUERIES * T * sizeof(float)), at.grads = piece(&memory, QUERIES * T * sizeof(float));
    return at;
}

// Bytes of a thread's workspace, and a little more.
int64_t attention_workspace_bytes(int64_t T, int64_t D) {
    const long slices = 2 * slices_of(D, T) + 2 * slices_of(T, D);
    const long packed_bytes = slices * (SLICE_VALUES * 2 + 4), rows = (T + WIDTH) * 4 + 2 * QUERIES * T * 4;
    return (WORKSPACE_BYTES + packed_bytes + rows) / LINE * LINE + 16 * LINE;
}

// The weights of `queries` queries q (queries, D) from `begin` on, (queries, end).
static void weigh(strided q, long begin, long queries, long end, long D, float scale, const attention_workspace *at) {
    matmul_packed(q, at->keys_transposed, at->matmul.left, at->weights, end, queries, end, D);
    for (long i = 0; i < queries; i++) softmax_row(at->weights, i * end, FP32, begin + i + 1, end, scale, at->row);
}

// Dropout of weights (Srivastava et al. 2014): zero with probability `under` / 2^32, else times `scale`.
typedef struct {
    uint64_t seed;
    uint32_t under; // 0: none are dropped
    float scale;
} dropout;

// A number of 64 bits from one, of which each bit hangs on all of that: the finalizer of SplitMix64 (Steele, Lea and
// Flood 2014).
static inline uint64_t scattered(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

// Drops of the first n weights of a row, or of their gradients. query: the row's place among all of all heads.
static void drop(float *row, long n, long query, dropout by) {
    const uint64_t key = scattered(by.seed + query * 0x9e3779b97f4a7c15);
    u32x places;
    for (int i = 0; i < WIDTH; i++) places[i] = i;
    for (long j = 0; j < n; j += WIDTH) {
        // As above, for 32 bits (Wellons 2018), each half of the key once.
        u32x x = (places + (uint32_t)j) ^ (uint32_t)key;
        x = (x ^ x >> 16) * 0x7feb352du;
        x = ((x ^ x >> 15) + (uint32_t)(key >> 32)) * 0x846ca68bu;
        x = x ^ x >> 16;
        const i32x kept = x >= by.under;
        store_some(row, j, n - j, (f32x)(kept & (i32x)(load_some(row, j, n - j, FP32) * by.scale)), FP32);
    }
}

// The same for the queries from `begin` on of a head, whose first query's place is `first`; `end` numbers a row.
static void drop_rows(float *rows, long begin, long queries, long end, long first, dropout by) {
    if (!by.under) return;
    for (long i = 0; i < queries; i++) drop(rows + i * end, begin + i + 1, first + begin + i, by);
}

// y (B, H, T, D) = dropout(softmax(q k^T * scale, causal)) v. q: (B, H, T, D); k and v: (B, K, T, D). Returns 0, or 1
// where memory ran out.
int32_t attention_forward(
    heads q, heads k, heads v, heads y, int64_t B, int64_t H, int64_t K, int64_t T, int64_t D, float scale,
    dropout by, int32_t n_threads
) {
    const long bytes = attention_workspace_bytes(T, D), group = H / K;
    char *taken = malloc(n_threads * bytes + LINE), *memory = next_line(taken);
    if (!taken) return 1;
#pragma omp parallel num_threads(n_threads)
    {
        const attention_workspace at = attention_workspace_in(memory + this_thread() * bytes, T, D);
        long packed_head = -1;
#pragma omp for schedule(static) collapse(2)
        for (long bh = 0; bh < B * H; bh++)
            for (long begin = 0; begin < T; begin += QUERIES) {
                const long b = bh / H, h = bh % H, kv = h / group;
                if (packed_head != b * K + kv) {
                    packed_head = b * K + kv;
                    pack(transposed(rows_of(k, b, kv)), T, D, at.keys_transposed, 0, 1);
                    pack(rows_of(v, b, kv), D, T, at.values, 0, 1);
                }
                const long queries = least(QUERIES, T - begin), end = begin + queries;
                const strided of_q = {head_of(q, b, h) + begin * q.token, q.token, 1};
                float *to_y = head_of(y, b, h) + begin * y.token;
                weigh(of_q, begin, queries, end, D, scale, &at);
                drop_rows(at.weights, begin, queries, end, bh * T, by);
                const strided weights = {at.weights, end, 1};
                matmul_packed(weights, at.values, at.matmul.left, to_y, y.token, queries, D, end);
            }
    }
    free(taken);
    return 0;
}

// The gradients by q, k and v from that by y. A thread takes all the query heads of a key head, whose gradients add up.
int32_t attention_backward(
    heads q, heads k, heads v, heads grad_y, heads grad_q, heads grad_k, heads grad_v, int64_t B, int64_t H, int64_t K,
    int64_t T, int64_t D, float scale, dropout by, int32_t n_threads
) {
    const long bytes = attention_workspace_bytes(T, D), group = H / K;
    char *taken = malloc(n_threads * bytes + LINE), *memory = next_line(taken);
    if (!taken) return 1;
#pragma omp parallel num_threads(n_threads)
    {
        const attention_workspace at = attention_workspace_in(memory + this_thread() * bytes, T, D);
        const matmul_workspace *work = &at.matmul;
#pragma omp for schedule(static)
        for (long bk = 0; bk < B * K; bk++) {
            const long b = bk / K, kv = bk % K;
            pack(transposed(rows_of(k, b, kv)), T, D, at.keys_transposed, 0, 1);
            pack(rows_of(k, b, kv), D, T, at.keys, 0, 1);
            pack(transposed(rows_of(v, b, kv)), T, D, at.values_transposed, 0, 1);
            float *to_k = head_of(grad_k, b, kv), *to_v = head_of(grad_v, b, kv);
            for (long t = 0; t < T; t++) {
                memset(to_k + t * grad_k.token, 0, D * sizeof *to_k);
                memset(to_v + t * grad_v.token, 0, D * sizeof *to_v);
            }
            for (long h = kv * group; h < (kv + 1) * group; h++)
                for (long begin = 0; begin < T; begin += QUERIES) {
                    const long queries = least(QUERIES, T - begin), end = begin + queries;
                    const strided of_q = {head_of(q, b, h) + begin * q.token, q.token, 1};
                    const strided of_y = {head_of(grad_y, b, h) + begin * grad_y.token, grad_y.token, 1};
                    const strided weights = {at.weights, end, 1}, grads = {at.grads, end, 1};
                    float *to_q = head_of(grad_q, b, h) + begin * grad_q.token;
                    weigh(of_q, begin, queries, end, D, scale, &at);
                    matmul_packed(of_y, at.values_transposed, work->left, at.grads, end, queries, end, D);
                    drop_rows(at.grads, begin, queries, end, (b * H + h) * T, by);
                    for (long i = 0; i < queries; i++)
                        softmax_row_backward(
                            at.weights, at.grads, i * end, FP32, begin + i + 1, end, scale, at.grads
                        );
                    drop_rows(at.weights, begin, queries, end, (b * H + h) * T, by);
                    matmul_share(
                        transposed(weights), of_y, to_v, grad_v.token, end, D, queries, 1, NO_EPILOGUE, work, 0, 1
                    );
                    matmul_packed(grads, at.keys, work->left, to_q, grad_q.token, queries, D, end);
                    matmul_share(
                        transposed(grads), of_q, to_k, grad_k.token, end, D, queries, 1, NO_EPILOGUE, work, 0, 1
                    );
                }
        }
    }
    free(taken);
    return 0;
}
