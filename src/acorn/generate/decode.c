// One token for each of B sequences through the whole network, for CPUs. Compiled and called by native.py.
//
// A token reads every weight once and computes little with it, so memory sets the pace. PyTorch reaches half of that
// pace (docs/performance.md): each of its few hundred small operations is a call that pushes others out of the
// caches, and products of one row are slow in bf16. Here each weight is read once, in order, in the type it is stored
// in, and used for all sequences. Activations and sums are fp32; what tiles multiply is rounded to bf16. Letters for
// sizes are those of model/gpt.py.

#include "vectors.h"
#if defined(__AMX_BF16__) && defined(__linux__)
#define HAS_TILES // Intel's matrix unit, in CPUs since Sapphire Rapids
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define AHEAD 8192 // bytes; weights are asked for this far ahead, since CPUs stop looking ahead at every page's end
#define AHEAD_OF_CACHE 4096 // likewise, for keys and values

#define TILE 16         // sequences, or rows of a matrix, of a tile
#define TILE_COLUMNS 32 // bf16 numbers in a row of a tile
#define TILES_FROM 5    // sequences from which on tiles are faster; vectors take up to four at a time

enum activation { RELU, GELU, SWIGLU };

typedef struct {
    const void *weight; // (rows, columns); NULL: there is no such matrix. For INT8 see `rows_times`
    const float *scale; // (rows), for INT8: what each row was divided by
    const float *bias;  // (rows), or NULL
    int32_t rows, columns;
} matrix;

typedef struct {
    const float *weight, *bias; // weight NULL: no such norm; bias NULL: RMSNorm, else LayerNorm
    float eps;
} norm;

typedef struct {
    norm attention_norm, q_norm, k_norm, mlp_norm;
    matrix q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj;
} block;

typedef struct {
    int32_t n_layer, n_head, n_kv_head, head_dim, n_embd, mlp_hidden, activation, type, n_threads;
    const block *blocks;
    const float *token_embedding;    // (V, C)
    const float *position_embedding; // (block_size, C), or NULL
    const float *cosines, *sines;    // (block_size, D), or NULL
    norm final_norm;
    matrix head;
} model;

typedef struct {
    void *keys, *values;   // (n_layer, B, K, length, D), both FP32 or both BF16
    const int64_t *starts; // (B): where each sequence begins
    int32_t type, batch, length, position;
} cache;

// y[b][row .. row + R] = the products of R rows of the matrix with B vectors x[b]. R and B are known when this is
// compiled, so that the sums stay in registers. INT8: of each 64 columns, byte j of 32-bit word i is column 16 j + i, so
// that shifts, which every CPU has, part them into four vectors.
static inline __attribute__((always_inline)) void rows_times(
    const matrix *m, int type, long row, const int R, const float *x, const int B, float *y
) {
    const long columns = m->columns;
    floats sums[4][4] = {0};
    long c = 0;
    for (; type == INT8 && c + 4 * WIDTH <= columns; c += 4 * WIDTH) {
        for (int r = 0; r < R; r++) {
            const int8_t *place = (const int8_t *)m->weight + (row + r) * columns + c;
            __builtin_prefetch(place + AHEAD);
            const words four = *(const words *)place;
            for (int byte = 0; byte < 4; byte++) {
                floats w = __builtin_convertvector((integers)(four << (24 - 8 * byte)) >> 24, floats);
                for (int b = 0; b < B; b++) sums[r][b] += w * load(x, b * columns + c + byte * WIDTH, FP32);
            }
        }
    }
    for (; type != INT8 && c + WIDTH <= columns; c += WIDTH) {
        for (int r = 0; r < R; r++) {
            const long place = (row + r) * columns + c;
            __builtin_prefetch((const char *)m->weight + place * (type == FP32 ? 4 : 2) + AHEAD);
            floats w = load(m->weight, place, type);
            for (int b = 0; b < B; b++) sums[r][b] += w * load(x, b * columns + c, FP32);
        }
    }
    for (int r = 0; r < R; r++) {
        for (int b = 0; b < B; b++) {
            float sum = total(sums[r][b]);
            for (long rest = c; rest < columns; rest++)
                sum += load_one(m->weight, (row + r) * columns + rest, type) * x[b * columns + rest];
            if (type == INT8) sum *= m->scale[row + r];
            if (m->bias) sum += m->bias[row + r];
            y[b * (long)m->rows + row + r] = sum;
        }
    }
}

// Every thread takes a stretch of rows, four at a time with up to four sequences. Ends without waiting for the others.
static inline __attribute__((always_inline)) void multiply_as(
    const matrix *m, const int type, const float *x, int batch, float *y
) {
#pragma omp for schedule(static) nowait
    for (long group = 0; group < (m->rows + 3) / 4; group++) {
        long row = 4 * group;
        if (row + 4 > m->rows) {
            for (; row < m->rows; row++)
                for (long b = 0; b < batch; b++)
                    rows_times(m, type, row, 1, x + b * m->columns, 1, y + b * m->rows);
            continue;
        }
        long b = 0;
        for (; b + 4 <= batch; b += 4) rows_times(m, type, row, 4, x + b * m->columns, 4, y + b * m->rows);
        for (; b < batch; b++) rows_times(m, type, row, 4, x + b * m->columns, 1, y + b * m->rows);
    }
}

static long up_to_multiple(long value, long of) {
    return (value + of - 1) / of * of;
}

// bf16 numbers that a thread of `multiply_with_tiles` has to keep.
static long tile_room(int batch, long columns) {
    return up_to_multiple(batch, TILE) * up_to_multiple(columns, 2 * TILE_COLUMNS);
}

#ifdef HAS_TILES
static int has_tiles; // whether Linux, which wants to be asked before the first use, lets this process have them

static void ask_for_tiles(void) {
    has_tiles = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
}

static void begin_tiles(void) {
    static const struct { // static: compilers were seen to take only the first bytes of it as read
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shapes = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64}, .rows = {TILE, TILE, TILE, TILE, TILE, TILE}};
    _tile_loadconfig(&shapes);
}

// Asks memory for a group of 16 rows and 64 columns: what the next rows will want.
static inline void ask_for_group(const matrix *m, int type, long row, long column) {
    const int bytes = type == BF16 ? 2 : 1; // of a number, and so lines of 64 bytes in each row
    for (long r = row; r < row + TILE; r++)
        for (int line = 0; line < bytes; line++)
            __builtin_prefetch((const char *)m->weight + (r * m->columns + column) * bytes + 64 * line, 0, 2);
}

// A group of 16 rows and 64 columns of a matrix as two tiles of bf16, with zeros where the matrix ends. An int8 number
// has a bf16 number of its own.
static void copy_tiles(const matrix *m, int type, long row, long column, uint16_t (*tiles)[TILE][TILE_COLUMNS]) {
    const long rows = m->rows - row < TILE ? m->rows - row : TILE, columns = m->columns - column;
    if (rows < TILE || columns < 2 * TILE_COLUMNS) memset(tiles, 0, 2 * sizeof *tiles);
    for (int r = 0; r < rows; r++) {
        const long place = (row + r) * m->columns + column;
        if (type == INT8 && columns >= 4 * WIDTH) {
            const words four = *(const words *)((const int8_t *)m->weight + place);
            for (int byte = 0; byte < 4; byte++) {
                const floats w = __builtin_convertvector((integers)(four << (24 - 8 * byte)) >> 24, floats);
                *(halves *)&tiles[byte / 2][r][byte % 2 * WIDTH] = __builtin_convertvector((words)w >> 16, halves);
            }
            continue;
        }
        for (int c = 0; c < 2 * TILE_COLUMNS && c < columns; c++)
            store_one(tiles[c / TILE_COLUMNS][r], c % TILE_COLUMNS, load_one(m->weight, place + c, type), BF16);
    }
}

// As `multiply`, for bf16 and int8: 16 rows with 16 sequences at a time. Inputs are rounded to bf16.
// A tile's product wants pairs of columns of all sequences side by side; `inputs` gets them so.
static void multiply_with_tiles(const matrix *m, int type, const float *x, int batch, uint16_t *inputs, float *y) {
    const long step = 2 * TILE_COLUMNS, columns = up_to_multiple(m->columns, step);
    memset(inputs, 0, tile_room(batch, m->columns) * sizeof *inputs);
    for (long b = 0; b < batch; b++)
        for (long c = 0; c < m->columns; c++)
            store_one(
                inputs + b / TILE * TILE * columns, (c / 2 * TILE + b % TILE) * 2 + c % 2, x[b * m->columns + c], BF16
            );
    __asm__ volatile("" ::: "memory");
#pragma omp for schedule(static) nowait
    for (long row = 0; row < m->rows; row += TILE) {
        for (long first = 0; first < batch; first += TILE) {
            const uint16_t *pairs = inputs + first * columns;
            _tile_zero(0);
            _tile_zero(1);
            for (long c = 0; c < columns; c += step) {
                if (first == 0) ask_for_group(m, type, row + TILE, c);
                if (type == BF16 && row + TILE <= m->rows && c + step <= m->columns) {
                    const uint16_t *place = (const uint16_t *)m->weight + row * m->columns + c;
                    _tile_loadd(2, place, 2 * m->columns);
                    _tile_loadd(3, place + TILE_COLUMNS, 2 * m->columns);
                } else {
                    uint16_t tiles[2][TILE][TILE_COLUMNS] __attribute__((aligned(64)));
                    copy_tiles(m, type, row, c, tiles);
                    __asm__ volatile("" ::: "memory"); // loads of tiles do not tell compilers what they read
                    _tile_loadd(2, tiles[0], sizeof tiles[0][0]);
                    _tile_loadd(3, tiles[1], sizeof tiles[1][0]);
                }
                _tile_loadd(4, pairs + c * TILE, 64);
                _tile_loadd(5, pairs + (c + TILE_COLUMNS) * TILE, 64);
                _tile_dpbf16ps(0, 2, 4); // two sums, since a product has to wait for the one before it
                _tile_dpbf16ps(1, 3, 5);
            }
            float sums[2][TILE][TILE];
            _tile_stored(0, sums[0], sizeof sums[0][0]);
            _tile_stored(1, sums[1], sizeof sums[1][0]);
            for (long b = first; b < batch && b < first + TILE; b++) {
                for (long r = 0; r < TILE && row + r < m->rows; r++) {
                    float sum = sums[0][r][b - first] + sums[1][r][b - first];
                    if (type == INT8) sum *= m->scale[row + r];
                    if (m->bias) sum += m->bias[row + r];
                    y[b * m->rows + row + r] = sum;
                }
            }
        }
    }
}
#endif

static void multiply(const matrix *m, int type, const float *x, int batch, uint16_t *inputs, float *y) {
#ifdef HAS_TILES
    if (type != FP32 && batch >= TILES_FROM && has_tiles) {
        multiply_with_tiles(m, type, x, batch, inputs, y);
        return;
    }
#else
    (void)inputs;
#endif
    if (type == FP32) multiply_as(m, FP32, x, batch, y);
    else if (type == BF16) multiply_as(m, BF16, x, batch, y);
    else multiply_as(m, INT8, x, batch, y);
}

// y = RMSNorm or LayerNorm of one vector.
static void normalize(const norm *n, const float *x, int width, float *y) {
    float mean = 0, square = 0;
    if (n->bias) {
        for (int i = 0; i < width; i++) mean += x[i];
        mean /= width;
    }
    for (int i = 0; i < width; i++) square += (x[i] - mean) * (x[i] - mean);
    const float scale = 1 / sqrtf(square / width + n->eps);
    for (int i = 0; i < width; i++) y[i] = (x[i] - mean) * scale * n->weight[i] + (n->bias ? n->bias[i] : 0);
}

// Norm and rotation of one head of a query or key, in place.
static void place_head(const model *m, const norm *n, float *head, long position) {
    const int D = m->head_dim;
    if (n->weight) normalize(n, head, D, head);
    if (!m->cosines) return;
    const float *cosine = m->cosines + position * D, *sine = m->sines + position * D;
    for (int i = 0; i < D / 2; i++) {
        float first = head[i], second = head[i + D / 2];
        head[i] = first * cosine[i] - second * sine[i];
        head[i + D / 2] = second * cosine[i + D / 2] + first * sine[i + D / 2];
    }
}

// y (D) = softmax(q k^T / sqrt(D)) v over the tokens `start .. end` of one key and value head.
static inline __attribute__((always_inline)) void attend_as(
    const int type, const float *q, const void *keys, const void *values, long start, long end, int D, float *scores,
    float *y
) {
    float most = -INFINITY;
    const float scale = 1 / sqrtf(D);
    const long bytes = type == FP32 ? 4 : 2, whole = start + (end - start) / WIDTH * WIDTH;
    for (long t = start; t < end; t++) {
        floats sums = {0};
        int i = 0;
        for (; i + WIDTH <= D; i += WIDTH) {
            __builtin_prefetch((const char *)keys + (t * D + i) * bytes + AHEAD_OF_CACHE);
            sums += load(keys, t * D + i, type) * load(q, i, FP32);
        }
        float score = total(sums);
        for (; i < D; i++) score += load_one(keys, t * D + i, type) * q[i];
        scores[t] = score * scale;
        most = scores[t] > most ? scores[t] : most;
    }
    floats parts = {0};
    for (long t = start; t < whole; t += WIDTH) {
        floats part = exponential(load(scores, t, FP32) - most);
        store(scores, t, part, FP32);
        parts += part;
    }
    float sum = total(parts);
    for (long t = whole; t < end; t++) sum += scores[t] = exponential(all(scores[t] - most))[0];
    const float share = 1 / sum;
    int i = 0;
    for (; i + 4 * WIDTH <= D; i += 4 * WIDTH) { // four vectors of y at a time stay in registers
        floats sums[4] = {0};
        for (long t = start; t < end; t++) {
            for (int j = 0; j < 4; j++) {
                const long place = t * D + i + j * WIDTH;
                __builtin_prefetch((const char *)values + place * bytes + AHEAD_OF_CACHE);
                sums[j] += scores[t] * load(values, place, type);
            }
        }
        for (int j = 0; j < 4; j++) *(floats *)(y + i + j * WIDTH) = sums[j] * share;
    }
    for (; i < D; i++) {
        y[i] = 0;
        for (long t = start; t < end; t++) y[i] += share * scores[t] * load_one(values, t * D + i, type);
    }
}

static inline __attribute__((always_inline)) floats activated(floats x, int activation) {
    if (activation == RELU) return larger(all(0), x); // NaN stays NaN
    if (activation == SWIGLU) return x * sigmoid(x);
    return x * sigmoid(1.5957691216f * (x + 0.044715f * x * x * x)); // GPT-2's GELU, since 1 + tanh(z) = 2 sigmoid(2 z)
}

// Floats of room that each thread works in: one row of scores, and the inputs of a product with tiles.
static int64_t thread_room(const model *m, const cache *kv) {
    long widest = m->n_head * m->head_dim > m->n_embd ? m->n_head * m->head_dim : m->n_embd;
    if (m->mlp_hidden > widest) widest = m->mlp_hidden;
    return kv->length + 16 + tile_room(kv->batch, widest) / 2; // 16: tiles begin where a line of the caches does
}

// Floats of room that `decode` works in.
int64_t decode_room(const model *m, const cache *kv) {
    int64_t heads = m->n_head + 2 * m->n_kv_head, attended = m->n_head;
    int64_t wide = (heads + attended) * m->head_dim + 3 * m->n_embd + 2 * m->mlp_hidden;
    return wide * kv->batch + m->n_threads * thread_room(m, kv);
}

// Reads ids (B), adds their keys and values to the cache at `position`, and writes logits (B, V).
void decode(const model *m, const cache *kv, const int64_t *ids, float *room, float *logits) {
    const int B = kv->batch, C = m->n_embd, D = m->head_dim, H = m->n_head, K = m->n_kv_head, F = m->mlp_hidden;
    float *x = room, *normed = x + (long)B * C, *delta = normed + (long)B * C, *q = delta + (long)B * C;
    float *k = q + (long)B * H * D, *v = k + (long)B * K * D, *mixed = v + (long)B * K * D;
    float *up = mixed + (long)B * H * D, *gate = up + (long)B * F, *of_threads = gate + (long)B * F;

    const int gated = m->activation == SWIGLU;
#ifdef HAS_TILES
    ask_for_tiles();
#endif
#pragma omp parallel num_threads(m->n_threads)
    {
        float *scores = of_threads + this_thread() * thread_room(m, kv);
        uint16_t *inputs = (uint16_t *)up_to_multiple((long)(scores + kv->length), 64);
#ifdef HAS_TILES
        if (has_tiles) begin_tiles();
#endif
#pragma omp for
        for (int b = 0; b < B; b++) {
            const float *place = m->position_embedding;
            if (place) place += (kv->position - kv->starts[b]) * C;
            for (int i = 0; i < C; i++) x[(long)b * C + i] = m->token_embedding[ids[b] * C + i] + (place ? place[i] : 0);
            normalize(&m->blocks[0].attention_norm, x + (long)b * C, C, normed + (long)b * C);
        }
        for (int l = 0; l < m->n_layer; l++) {
            const block *layer = &m->blocks[l];
            multiply(&layer->q_proj, m->type, normed, B, inputs, q);
            multiply(&layer->k_proj, m->type, normed, B, inputs, k);
            multiply(&layer->v_proj, m->type, normed, B, inputs, v);
#pragma omp barrier
            const long per_head = (long)kv->length * D;
#pragma omp for
            for (int g = 0; g < B * K; g++) { // one key and value head of one sequence, and the queries that share it
                const int b = g / K;
                const long base = ((long)l * B * K + g) * per_head, place = kv->position - kv->starts[b];
                place_head(m, &layer->k_norm, k + (long)g * D, place);
                for (int i = 0; i < D; i++) {
                    store_one(kv->keys, base + (long)kv->position * D + i, k[(long)g * D + i], kv->type);
                    store_one(kv->values, base + (long)kv->position * D + i, v[(long)g * D + i], kv->type);
                }
                const int wide = kv->type == FP32 ? 4 : 2;
                const char *keys = (char *)kv->keys + base * wide, *values = (char *)kv->values + base * wide;
                for (int h = g * (H / K); h < (g + 1) * (H / K); h++) {
                    float *query = q + (long)h * D, *y = mixed + (long)h * D;
                    place_head(m, &layer->q_norm, query, place);
                    if (kv->type == FP32)
                        attend_as(FP32, query, keys, values, kv->starts[b], kv->position + 1, D, scores, y);
                    else attend_as(BF16, query, keys, values, kv->starts[b], kv->position + 1, D, scores, y);
                }
            }
            multiply(&layer->o_proj, m->type, mixed, B, inputs, delta);
#pragma omp barrier
#pragma omp for
            for (int b = 0; b < B; b++) {
                for (int i = 0; i < C; i++) x[(long)b * C + i] += delta[(long)b * C + i];
                normalize(&layer->mlp_norm, x + (long)b * C, C, normed + (long)b * C);
            }
            multiply(&layer->up_proj, m->type, normed, B, inputs, up);
            if (gated) multiply(&layer->gate_proj, m->type, normed, B, inputs, gate);
#pragma omp barrier
#pragma omp for
            for (long i = 0; i < (long)B * F; i += WIDTH) {
                const long n = (long)B * F - i;
                floats y = activated(load_some(gated ? gate : up, i, n, FP32), m->activation);
                if (gated) y *= load_some(up, i, n, FP32);
                store_some(up, i, n, y, FP32);
            }
            multiply(&layer->down_proj, m->type, up, B, inputs, delta);
#pragma omp barrier
            const norm *next = l + 1 < m->n_layer ? &m->blocks[l + 1].attention_norm : &m->final_norm;
#pragma omp for
            for (int b = 0; b < B; b++) {
                for (int i = 0; i < C; i++) x[(long)b * C + i] += delta[(long)b * C + i];
                normalize(next, x + (long)b * C, C, normed + (long)b * C);
            }
        }
        multiply(&m->head, m->type, normed, B, inputs, logits);
#ifdef HAS_TILES
        if (has_tiles) _tile_release();
#endif
    }
}
