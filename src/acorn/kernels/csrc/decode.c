// Decoding on a CPU: the forward of B tokens through the whole network. Called by decode.py. Most often each is the next
// token of another sequence; tokens of a prompt follow each other in one sequence.
//
// A single token reads every weight once and does little arithmetic with it, so memory bandwidth limits the speed. PyTorch
// does not reach that limit (docs/benchmarks.md): it calls a few hundred small operations that evict each other's data
// from the caches, and its bf16 matmuls of one row are slow. Here each weight is read once, in memory order, in the
// type it is stored in, and used for all tokens (decode_matmul.h). Activations are fp32. Letters for sizes are those
// of model/gpt.py.

#include "activations.h"
#include "decode_matmul.h"
#include "rope.h"

#define CACHE_PREFETCH_BYTES 4096 // keys and values are prefetched this far ahead

enum activation { RELU, GELU, SWIGLU };

typedef struct {
    const float *weight, *bias; // weight NULL: the network has no such norm; bias NULL: RMSNorm, else LayerNorm
    float eps;
} decode_norm;

typedef struct {
    decode_norm attention_norm, q_norm, k_norm, mlp_norm;
    weights q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj;
} decode_block;

typedef struct {
    int32_t n_layer, n_head, n_kv_head, head_dim, n_embd, mlp_hidden, activation, type, n_threads;
    int32_t batch_invariant; // whether a token's logits must not depend, to the last bit, on the rest of the batch
    const decode_block *blocks;
    const float *token_embedding;    // (V, C)
    const float *position_embedding; // (block_size, C), or NULL
    const float *cosines, *sines;    // (block_size, D), or NULL
    decode_norm final_norm;
    weights head;
} decode_model;

typedef struct {
    void *keys, *values;              // (n_layer, n_slots, K, length, D), both FP32 or both BF16
    const int64_t *slots, *positions; // (B): the place in the cache of each token's sequence, and its position there
    int32_t type, batch, n_slots, length;
} decode_cache;

// y = RMSNorm or LayerNorm of one vector. Not norm.h's, which sums in a different order: the last bits would differ.
static void norm_forward(const decode_norm *n, const float *x, int width, float *y) {
    float mean = 0, square = 0;
    if (n->bias) {
        for (int i = 0; i < width; i++) mean += x[i];
        mean /= width;
    }
    for (int i = 0; i < width; i++) square += (x[i] - mean) * (x[i] - mean);
    const float scale = 1 / sqrtf(square / width + n->eps);
    for (int i = 0; i < width; i++) y[i] = (x[i] - mean) * scale * n->weight[i] + (n->bias ? n->bias[i] : 0);
}

// RMSNorm and rotary position of one head of a query or key, in place.
static void qk_norm_rope(const decode_model *m, const decode_norm *n, float *head, long position) {
    const int D = m->head_dim;
    if (n->weight) norm_forward(n, head, D, head);
    if (m->cosines) rotate_head(head, 0, FP32, m->cosines + position * D, m->sines + position * D, D, 0, head, 0, FP32);
}

// y (D) = softmax(q k^T / sqrt(D)) v over the first `end` tokens of one key and value head.
static inline __attribute__((always_inline)) void attention_head(
    const int type, const float *q, const void *keys, const void *values, long end, int D, float *scores, float *y
) {
    float maximum = -INFINITY;
    const float scale = 1 / sqrtf(D);
    const long bytes = type == FP32 ? 4 : 2, n_full = end / WIDTH * WIDTH;
    for (long t = 0; t < end; t++) {
        f32x sums = {0};
        int i = 0;
        for (; i + WIDTH <= D; i += WIDTH) {
            __builtin_prefetch((const char *)keys + (t * D + i) * bytes + CACHE_PREFETCH_BYTES);
            sums += load(keys, t * D + i, type) * load(q, i, FP32);
        }
        float score = reduce_add(sums);
        for (; i < D; i++) score += load_scalar(keys, t * D + i, type) * q[i];
        scores[t] = score * scale;
        maximum = scores[t] > maximum ? scores[t] : maximum;
    }
    f32x parts = {0};
    for (long t = 0; t < n_full; t += WIDTH) {
        f32x part = exponential(load(scores, t, FP32) - maximum);
        store(scores, t, part, FP32);
        parts += part;
    }
    float sum = reduce_add(parts);
    for (long t = n_full; t < end; t++) sum += scores[t] = exponential(broadcast(scores[t] - maximum))[0];
    const float inverse_sum = 1 / sum;
    int i = 0;
    for (; i + 4 * WIDTH <= D; i += 4 * WIDTH) { // four vectors of y together stay in registers
        f32x sums[4] = {0};
        for (long t = 0; t < end; t++) {
            for (int j = 0; j < 4; j++) {
                const long offset = t * D + i + j * WIDTH;
                __builtin_prefetch((const char *)values + offset * bytes + CACHE_PREFETCH_BYTES);
                sums[j] += scores[t] * load(values, offset, type);
            }
        }
        for (int j = 0; j < 4; j++) *(f32x *)(y + i + j * WIDTH) = sums[j] * inverse_sum;
    }
    for (; i < D; i++) {
        y[i] = 0;
        for (long t = 0; t < end; t++) y[i] += inverse_sum * scores[t] * load_scalar(values, t * D + i, type);
    }
}

static inline __attribute__((always_inline)) f32x activate(f32x x, int activation) {
    if (activation == RELU) return max_f32x(broadcast(0), x); // NaN stays NaN
    if (activation == SWIGLU) return x * sigmoid(x);
    return gelu(x);
}

// Floats of workspace for `decode`: activations, packed inputs of a matmul, and a row of scores per thread.
int64_t decode_workspace_floats(const decode_model *m, const decode_cache *kv) {
    int64_t heads = m->n_head + 2 * m->n_kv_head, attended = m->n_head * m->head_dim;
    int64_t activations = heads * m->head_dim + attended + 3 * m->n_embd + 2 * m->mlp_hidden;
    int64_t widest = attended > m->n_embd ? attended : m->n_embd;
    if (m->mlp_hidden > widest) widest = m->mlp_hidden;
    int64_t packed = 16 + packed_input_floats(kv->batch, widest, m->n_threads); // 16: to align it to a cache line
    return activations * kv->batch + packed + (int64_t)m->n_threads * kv->length;
}

// The forward of ids (B): writes their keys and values to the cache, and logits (n_rows, V) of the tokens in `rows`. A
// token attends to all earlier positions of its sequence, those of this batch included.
void decode(
    const decode_model *m, const decode_cache *kv, const int64_t *ids, const int64_t *rows, int32_t n_rows,
    float *workspace, float *logits
) {
    const int B = kv->batch, C = m->n_embd, D = m->head_dim, H = m->n_head, K = m->n_kv_head, F = m->mlp_hidden;
    float *x = workspace, *normed = x + (long)B * C, *delta = normed + (long)B * C, *q = delta + (long)B * C;
    float *k = q + (long)B * H * D, *v = k + (long)B * K * D, *attended = v + (long)B * K * D;
    float *up = attended + (long)B * H * D, *gate = up + (long)B * F, *all_scores = gate + (long)B * F;
    float *packed = (float *)round_up((long)(all_scores + m->n_threads * (long)kv->length), 64);

    const int gated = m->activation == SWIGLU;
#ifdef HAS_AMX
    request_amx();
#endif
    const enum method method = m->batch_invariant ? SMALL_BATCH : choose_method(m->type, B);
#pragma omp parallel num_threads(m->n_threads)
    {
        float *scores = all_scores + thread_index() * (long)kv->length;
#ifdef HAS_AMX
        if (amx_available) configure_tiles();
#endif
#pragma omp for
        for (int b = 0; b < B; b++) {
            const float *position = m->position_embedding;
            if (position) position += kv->positions[b] * C;
            const float *token = m->token_embedding + ids[b] * C;
            for (int i = 0; i < C; i++) x[(long)b * C + i] = token[i] + (position ? position[i] : 0);
            norm_forward(&m->blocks[0].attention_norm, x + (long)b * C, C, normed + (long)b * C);
        }
        for (int l = 0; l < m->n_layer; l++) {
            const decode_block *layer = &m->blocks[l];
            pack_inputs(method, m->type, normed, B, C, packed);
            decode_matmul(&layer->q_proj, method, m->type, normed, B, packed, q);
            decode_matmul(&layer->k_proj, method, m->type, normed, B, packed, k);
            decode_matmul(&layer->v_proj, method, m->type, normed, B, packed, v);
#pragma omp barrier
            const long per_head = (long)kv->length * D;
#pragma omp for
            for (int g = 0; g < B * K; g++) { // a token and a key and value head
                const long position = kv->positions[g / K], slot = (long)l * kv->n_slots + kv->slots[g / K];
                const long base = (slot * K + g % K) * per_head + position * D;
                qk_norm_rope(m, &layer->k_norm, k + (long)g * D, position);
                for (int i = 0; i < D; i++) {
                    store_scalar(kv->keys, base + i, k[(long)g * D + i], kv->type);
                    store_scalar(kv->values, base + i, v[(long)g * D + i], kv->type);
                }
            }
#pragma omp for schedule(static, 1) // later tokens of a prompt attend to more
            for (int g = 0; g < B * K; g++) { // the same, and the query heads that share the key and value head
                const long position = kv->positions[g / K], slot = (long)l * kv->n_slots + kv->slots[g / K];
                const long base = (slot * K + g % K) * per_head;
                const int bytes = kv->type == FP32 ? 4 : 2; // of an element
                const char *keys = (char *)kv->keys + base * bytes, *values = (char *)kv->values + base * bytes;
                for (int h = g * (H / K); h < (g + 1) * (H / K); h++) {
                    float *query = q + (long)h * D, *y = attended + (long)h * D;
                    qk_norm_rope(m, &layer->q_norm, query, position);
                    if (kv->type == FP32)
                        attention_head(FP32, query, keys, values, position + 1, D, scores, y);
                    else attention_head(BF16, query, keys, values, position + 1, D, scores, y);
                }
            }
            pack_inputs(method, m->type, attended, B, H * D, packed);
            decode_matmul(&layer->o_proj, method, m->type, attended, B, packed, delta);
#pragma omp barrier
#pragma omp for
            for (int b = 0; b < B; b++) {
                for (int i = 0; i < C; i++) x[(long)b * C + i] += delta[(long)b * C + i];
                norm_forward(&layer->mlp_norm, x + (long)b * C, C, normed + (long)b * C);
            }
            pack_inputs(method, m->type, normed, B, C, packed);
            decode_matmul(&layer->up_proj, method, m->type, normed, B, packed, up);
            if (gated) decode_matmul(&layer->gate_proj, method, m->type, normed, B, packed, gate);
#pragma omp barrier
#pragma omp for
            for (long i = 0; i < (long)B * F; i += WIDTH) {
                const long n = (long)B * F - i;
                f32x y = activate(load_partial(gated ? gate : up, i, n, FP32), m->activation);
                if (gated) y *= load_partial(up, i, n, FP32);
                store_partial(up, i, n, y, FP32);
            }
            pack_inputs(method, m->type, up, B, F, packed);
            decode_matmul(&layer->down_proj, method, m->type, up, B, packed, delta);
#pragma omp barrier
            const decode_norm *next = l + 1 < m->n_layer ? &m->blocks[l + 1].attention_norm : &m->final_norm;
#pragma omp for
            for (int b = 0; b < B; b++) {
                for (int i = 0; i < C; i++) x[(long)b * C + i] += delta[(long)b * C + i];
                norm_forward(next, x + (long)b * C, C, normed + (long)b * C);
            }
        }
#pragma omp for
        for (int i = 0; i < n_rows; i++) memcpy(delta + (long)i * C, normed + rows[i] * C, C * sizeof *delta);
        pack_inputs(method, m->type, delta, n_rows, C, packed);
        decode_matmul(&m->head, method, m->type, delta, n_rows, packed, logits);
#ifdef HAS_AMX
        if (amx_available) _tile_release();
#endif
    }
}
