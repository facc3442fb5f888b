// One token for each of B sequences through the whole network, for CPUs. Called by decode.py.
//
// A token reads every weight once and computes little with it, so memory sets the pace. PyTorch reaches half of that
// pace (docs/performance.md): each of its few hundred small operations is a call that pushes others out of the
// caches, and matmuls of one row are slow in bf16. Here each weight is read once, in order, in the type it is stored
// in, and used for all sequences (decode_matmul.h). Activations are fp32. Letters for sizes are those of model/gpt.py.

#include "activations.h"
#include "decode_matmul.h"
#include "rope.h"

#define CACHE_AHEAD 4096 // bytes; keys and values are asked for this far ahead

enum activation { RELU, GELU, SWIGLU };

typedef struct {
    const float *weight, *bias; // weight NULL: no such norm; bias NULL: RMSNorm, else LayerNorm
    float eps;
} decode_norm;

typedef struct {
    decode_norm attention_norm, q_norm, k_norm, mlp_norm;
    weights q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj;
} decode_block;

typedef struct {
    int32_t n_layer, n_head, n_kv_head, head_dim, n_embd, mlp_hidden, activation, type, n_threads;
    const decode_block *blocks;
    const float *token_embedding;    // (V, C)
    const float *position_embedding; // (block_size, C), or NULL
    const float *cosines, *sines;    // (block_size, D), or NULL
    decode_norm final_norm;
    weights head;
} decode_model;

typedef struct {
    void *keys, *values;   // (n_layer, B, K, length, D), both FP32 or both BF16
    const int64_t *starts; // (B): where each sequence begins
    int32_t type, batch, length, position;
} decode_cache;

// y = RMSNorm or LayerNorm of one vector. norm.h adds up in another order, and int8 rounds what comes of it.
static void norm_vector(const decode_norm *n, const float *x, int width, float *y) {
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
static void norm_and_rotate(const decode_model *m, const decode_norm *n, float *head, long position) {
    const int D = m->head_dim;
    if (n->weight) norm_vector(n, head, D, head);
    if (m->cosines) rotate_head(head, 0, FP32, m->cosines + position * D, m->sines + position * D, D, 0, head, 0, FP32);
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
        f32x sums = {0};
        int i = 0;
        for (; i + WIDTH <= D; i += WIDTH) {
            __builtin_prefetch((const char *)keys + (t * D + i) * bytes + CACHE_AHEAD);
            sums += load(keys, t * D + i, type) * load(q, i, FP32);
        }
        float score = sum_of(sums);
        for (; i < D; i++) score += load_one(keys, t * D + i, type) * q[i];
        scores[t] = score * scale;
        most = scores[t] > most ? scores[t] : most;
    }
    f32x parts = {0};
    for (long t = start; t < whole; t += WIDTH) {
        f32x part = exponential(load(scores, t, FP32) - most);
        store(scores, t, part, FP32);
        parts += part;
    }
    float sum = sum_of(parts);
    for (long t = whole; t < end; t++) sum += scores[t] = exponential(splat(scores[t] - most))[0];
    const float share = 1 / sum;
    int i = 0;
    for (; i + 4 * WIDTH <= D; i += 4 * WIDTH) { // four vectors of y at a time stay in registers
        f32x sums[4] = {0};
        for (long t = start; t < end; t++) {
            for (int j = 0; j < 4; j++) {
                const long place = t * D + i + j * WIDTH;
                __builtin_prefetch((const char *)values + place * bytes + CACHE_AHEAD);
                sums[j] += scores[t] * load(values, place, type);
            }
        }
        for (int j = 0; j < 4; j++) *(f32x *)(y + i + j * WIDTH) = sums[j] * share;
    }
    for (; i < D; i++) {
        y[i] = 0;
        for (long t = start; t < end; t++) y[i] += share * scores[t] * load_one(values, t * D + i, type);
    }
}

static inline __attribute__((always_inline)) f32x activated(f32x x, int activation) {
    if (activation == RELU) return larger(splat(0), x); // NaN stays NaN
    if (activation == SWIGLU) return x * sigmoid(x);
    return gelu_of(x);
}

// Floats of workspace for `decode`: activations, inputs of a matmul as it wants them, a row of scores a thread.
int64_t decode_workspace_floats(const decode_model *m, const decode_cache *kv) {
    int64_t heads = m->n_head + 2 * m->n_kv_head, attended = m->n_head * m->head_dim;
    int64_t wide = heads * m->head_dim + attended + 3 * m->n_embd + 2 * m->mlp_hidden;
    int64_t widest = attended > m->n_embd ? attended : m->n_embd;
    if (m->mlp_hidden > widest) widest = m->mlp_hidden;
    int64_t arranged = 16 + arranged_floats(kv->batch, widest, m->n_threads); // 16: it begins with a line of the caches
    return wide * kv->batch + arranged + (int64_t)m->n_threads * kv->length;
}

// Reads ids (B), adds their keys and values to the cache at `position`, and writes logits (B, V).
void decode(const decode_model *m, const decode_cache *kv, const int64_t *ids, float *workspace, float *logits) {
    const int B = kv->batch, C = m->n_embd, D = m->head_dim, H = m->n_head, K = m->n_kv_head, F = m->mlp_hidden;
    float *x = workspace, *normed = x + (long)B * C, *delta = normed + (long)B * C, *q = delta + (long)B * C;
    float *k = q + (long)B * H * D, *v = k + (long)B * K * D, *mixed = v + (long)B * K * D;
    float *up = mixed + (long)B * H * D, *gate = up + (long)B * F, *of_threads = gate + (long)B * F;
    float *arranged = (float *)up_to_multiple((long)(of_threads + m->n_threads * (long)kv->length), 64);

    const int gated = m->activation == SWIGLU;
#ifdef HAS_TILES
    ask_for_tiles();
#endif
#pragma omp parallel num_threads(m->n_threads)
    {
        float *scores = of_threads + this_thread() * (long)kv->length;
#ifdef HAS_TILES
        if (has_tiles) begin_tiles();
#endif
#pragma omp for
        for (int b = 0; b < B; b++) {
            const float *place = m->position_embedding;
            if (place) place += (kv->position - kv->starts[b]) * C;
            const float *token = m->token_embedding + ids[b] * C;
            for (int i = 0; i < C; i++) x[(long)b * C + i] = token[i] + (place ? place[i] : 0);
            norm_vector(&m->blocks[0].attention_norm, x + (long)b * C, C, normed + (long)b * C);
        }
        for (int l = 0; l < m->n_layer; l++) {
            const decode_block *layer = &m->blocks[l];
            arrange(m->type, normed, B, C, arranged);
            decode_matmul(&layer->q_proj, m->type, normed, B, arranged, q);
            decode_matmul(&layer->k_proj, m->type, normed, B, arranged, k);
            decode_matmul(&layer->v_proj, m->type, normed, B, arranged, v);
#pragma omp barrier
            const long per_head = (long)kv->length * D;
#pragma omp for
            for (int g = 0; g < B * K; g++) { // one key and value head of one sequence, and the queries that share it
                const int b = g / K;
                const long base = ((long)l * B * K + g) * per_head, place = kv->position - kv->starts[b];
                norm_and_rotate(m, &layer->k_norm, k + (long)g * D, place);
                for (int i = 0; i < D; i++) {
                    store_one(kv->keys, base + (long)kv->position * D + i, k[(long)g * D + i], kv->type);
                    store_one(kv->values, base + (long)kv->position * D + i, v[(long)g * D + i], kv->type);
                }
                const int wide = kv->type == FP32 ? 4 : 2;
                const char *keys = (char *)kv->keys + base * wide, *values = (char *)kv->values + base * wide;
                for (int h = g * (H / K); h < (g + 1) * (H / K); h++) {
                    float *query = q + (long)h * D, *y = mixed + (long)h * D;
                    norm_and_rotate(m, &layer->q_norm, query, place);
                    if (kv->type == FP32)
                        attend_as(FP32, query, keys, values, kv->starts[b], kv->position + 1, D, scores, y);
                    else attend_as(BF16, query, keys, values, kv->starts[b], kv->position + 1, D, scores, y);
                }
            }
            arrange(m->type, mixed, B, H * D, arranged);
            decode_matmul(&layer->o_proj, m->type, mixed, B, arranged, delta);
#pragma omp barrier
#pragma omp for
            for (int b = 0; b < B; b++) {
                for (int i = 0; i < C; i++) x[(long)b * C + i] += delta[(long)b * C + i];
                norm_vector(&layer->mlp_norm, x + (long)b * C, C, normed + (long)b * C);
            }
            arrange(m->type, normed, B, C, arranged);
            decode_matmul(&layer->up_proj, m->type, normed, B, arranged, up);
            if (gated) decode_matmul(&layer->gate_proj, m->type, normed, B, arranged, gate);
#pragma omp barrier
#pragma omp for
            for (long i = 0; i < (long)B * F; i += WIDTH) {
                const long n = (long)B * F - i;
                f32x y = activated(load_some(gated ? gate : up, i, n, FP32), m->activation);
                if (gated) y *= load_some(up, i, n, FP32);
                store_some(up, i, n, y, FP32);
            }
            arrange(m->type, up, B, F, arranged);
            decode_matmul(&layer->down_proj, m->type, up, B, arranged, delta);
#pragma omp barrier
            const decode_norm *next = l + 1 < m->n_layer ? &m->blocks[l + 1].attention_norm : &m->final_norm;
#pragma omp for
            for (int b = 0; b < B; b++) {
                for (int i = 0; i < C; i++) x[(long)b * C + i] += delta[(long)b * C + i];
                norm_vector(next, x + (long)b * C, C, normed + (long)b * C);
            }
        }
        arrange(m->type, normed, B, C, arranged);
        decode_matmul(&m->head, m->type, normed, B, arranged, logits);
#ifdef HAS_TILES
        if (has_tiles) _tile_release();
#endif
    }
}
