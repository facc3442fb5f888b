// Causal attention whose products are in fp16, for training. Called by native_attention.py.
//
// A thread takes QUERIES queries of a head at a time: their scores, of the keys up to the last of them, stay in the
// second cache until they are weights and have been multiplied by the values. None are kept: the backward pass finds
// them again, which is less work than to fetch them from memory (Dao et al. 2022). Keys and values are packed once for
// all queries of a head: tokens after a query, within a panel or slice, have a say in how those before it are rounded,
// and in nothing else. Dropped weights are found again, too: which they are is a function of a seed and their places.
// Letters for sizes are those of model/gpt.py.

#include "causal_softmax.h"
#include "fp16_product.h"

enum { QUERIES = 48 };

// Heads of several sequences, (B, H or K, T, D): steps between sequences, heads and tokens, in numbers.
typedef struct {
    float *numbers;
    int64_t sequence, head, token;
} heads;

static inline float *head_of(heads x, long b, long h) { return x.numbers + b * x.sequence + h * x.head; }

static inline matrix rows_of(heads x, long b, long h) { return (matrix){head_of(x, b, h), x.token, 1}; }

static inline matrix turned(matrix x) { return (matrix){x.numbers, x.column, x.row}; }

// Room of a thread, taken piece by piece from what is left of it.
static void *piece(char **room, long bytes) {
    void *start = *room;
    *room += (bytes + LINE - 1) / LINE * LINE;
    return start;
}

// Slices of a packed matrix (K, N).
static long slices_of(long K, long N) { return (K + DEPTH - 1) / DEPTH * ((N + COLUMNS - 1) / COLUMNS); }

static packed room_for(long K, long N, char **room) {
    uint16_t *numbers = piece(room, slices_of(K, N) * SLICE * sizeof *numbers);
    return (packed){numbers, piece(room, slices_of(K, N) * sizeof(float)), (K + DEPTH - 1) / DEPTH};
}

// c (M, N) = a (M, K) b (K, N). b: packed as a whole, of which these may be the first rows or columns. left: room.
static void multiply_packed(matrix a, packed b, uint32_t *left, float *c, long c_row, long M, long N, long K) {
    for (long n = 0; n < N; n += BLOCK_COLUMNS)
        for (long k = 0; k < K; k += BLOCK_DEPTH) {
            const matrix part = {a.numbers + k * a.column, a.row, a.column};
            const packed by = packed_from(b, k, n);
            const long columns = least(BLOCK_COLUMNS, N - n), depth = least(BLOCK_DEPTH, K - k);
            multiply_rows(part, by, left, c + n, c_row, M, columns, depth, k > 0, NO_FINISH, 0, 1);
        }
}

// What a thread needs for a head.
typedef struct {
    rooms products;
    packed keys_turned, keys, values_turned, values; // (D, T) or (T, D)
    float *row, *weights, *grads; // (T), (QUERIES, T), (QUERIES, T)
} workspace;

static workspace workspace_in(char *room, long T, long D) {
    workspace at;
    at.products = rooms_in(piece(&room, ROOM));
    at.keys_turned = room_for(D, T, &room), at.keys = room_for(T, D, &room);
    at.values_turned = room_for(D, T, &room), at.values = room_for(T, D, &room);
    at.row = piece(&room, (T + WIDTH) * sizeof(float));
    at.weights = piece(&room, QUERIES * T * sizeof(float)), at.grads = piece(&room, QUERIES * T * sizeof(float));
    return at;
}

// Bytes of a thread's workspace, and a little more.
int64_t workspace_size(int64_t T, int64_t D) {
    const long slices = 2 * slices_of(D, T) + 2 * slices_of(T, D);
    return (ROOM + slices * (SLICE * 2 + 4) + (T + WIDTH) * 4 + 2 * QUERIES * T * 4) / LINE * LINE + 16 * LINE;
}

// The weights of `queries` queries q (queries, D) from `begin` on, (queries, end).
static void weigh(matrix q, long begin, long queries, long end, long D, float scale, const workspace *at) {
    multiply_packed(q, at->keys_turned, at->products.left, at->weights, end, queries, end, D);
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
    words places;
    for (int i = 0; i < WIDTH; i++) places[i] = i;
    for (long j = 0; j < n; j += WIDTH) {
        words x = (places + (uint32_t)j) ^ (uint32_t)key; // then as above, for 32 bits (Wellons 2018), with the other half
        x = (x ^ x >> 16) * 0x7feb352du;
        x = ((x ^ x >> 15) + (uint32_t)(key >> 32)) * 0x846ca68bu;
        x = x ^ x >> 16;
        const integers kept = x >= by.under;
        store_some(row, j, n - j, (floats)(kept & (integers)(load_some(row, j, n - j, FP32) * by.scale)), FP32);
    }
}

// The same for the queries from `begin` on of a head, whose first query's place is `first`; `end` numbers a row.
static void drop_rows(float *rows, long begin, long queries, long end, long first, dropout by) {
    if (!by.under) return;
    for (long i = 0; i < queries; i++) drop(rows + i * end, begin + i + 1, first + begin + i, by);
}

// y (B, H, T, D) = dropout(softmax(q k^T * scale, causal)) v. q: (B, H, T, D); k and v: (B, K, T, D). Returns 0, or 1
// where memory ran out.
int32_t causal_attention(
    heads q, heads k, heads v, heads y, int64_t B, int64_t H, int64_t K, int64_t T, int64_t D, float scale,
    dropout by, int32_t n_threads
) {
    const long bytes = workspace_size(T, D), group = H / K;
    char *taken = malloc(n_threads * bytes + LINE), *memory = next_line(taken);
    if (!taken) return 1;
#pragma omp parallel num_threads(n_threads)
    {
        const workspace at = workspace_in(memory + this_thread() * bytes, T, D);
        long packed_head = -1;
#pragma omp for schedule(static) collapse(2)
        for (long bh = 0; bh < B * H; bh++)
            for (long begin = 0; begin < T; begin += QUERIES) {
                const long b = bh / H, h = bh % H, kv = h / group;
                if (packed_head != b * K + kv) {
                    packed_head = b * K + kv;
                    pack(turned(rows_of(k, b, kv)), T, D, at.keys_turned, 0, 1);
                    pack(rows_of(v, b, kv), D, T, at.values, 0, 1);
                }
                const long queries = least(QUERIES, T - begin), end = begin + queries;
                const matrix of_q = {head_of(q, b, h) + begin * q.token, q.token, 1};
                float *to_y = head_of(y, b, h) + begin * y.token;
                weigh(of_q, begin, queries, end, D, scale, &at);
                drop_rows(at.weights, begin, queries, end, bh * T, by);
                const matrix weights = {at.weights, end, 1};
                multiply_packed(weights, at.values, at.products.left, to_y, y.token, queries, D, end);
            }
    }
    free(taken);
    return 0;
}

// The gradients by q, k and v from that by y. A thread takes all the query heads of a key head, whose gradients add up.
int32_t causal_attention_backward(
    heads q, heads k, heads v, heads grad_y, heads grad_q, heads grad_k, heads grad_v, int64_t B, int64_t H, int64_t K,
    int64_t T, int64_t D, float scale, dropout by, int32_t n_threads
) {
    const long bytes = workspace_size(T, D), group = H / K;
    char *taken = malloc(n_threads * bytes + LINE), *memory = next_line(taken);
    if (!taken) return 1;
#pragma omp parallel num_threads(n_threads)
    {
        const workspace at = workspace_in(memory + this_thread() * bytes, T, D);
        const rooms *room = &at.products;
#pragma omp for schedule(static)
        for (long bk = 0; bk < B * K; bk++) {
            const long b = bk / K, kv = bk % K;
            pack(turned(rows_of(k, b, kv)), T, D, at.keys_turned, 0, 1);
            pack(rows_of(k, b, kv), D, T, at.keys, 0, 1);
            pack(turned(rows_of(v, b, kv)), T, D, at.values_turned, 0, 1);
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
                    const matrix weights = {at.weights, end, 1}, grads = {at.grads, end, 1};
                    float *to_q = head_of(grad_q, b, h) + begin * grad_q.token;
                    weigh(of_q, begin, queries, end, D, scale, &at);
                    multiply_packed(of_y, at.values_turned, room->left, at.grads, end, queries, end, D);
                    drop_rows(at.grads, begin, queries, end, (b * H + h) * T, by);
                    for (long i = 0; i < queries; i++)
                        softmax_row_backward(
                            at.weights, at.grads, i * end, FP32, begin + i + 1, end, scale, at.grads
                        );
                    drop_rows(at.weights, begin, queries, end, (b * H + h) * T, by);
                    multiply_one(turned(weights), of_y, to_v, grad_v.token, end, D, queries, 1, NO_FINISH, room, 0, 1);
                    multiply_packed(grads, at.keys, room->left, to_q, grad_q.token, queries, D, end);
                    multiply_one(turned(grads), of_q, to_k, grad_k.token, end, D, queries, 1, NO_FINISH, room, 0, 1);
                }
        }
    }
    free(taken);
    return 0;
}
