// Chooses the next token of each of B sequences from its logits. Called by sample.py. The settings mean what they mean
// in generate/sampling.py, which does the same in PyTorch.
//
// A vocabulary has tens of thousands of entries, of which a handful matter: the largest scores are found by comparing
// the maxima of blocks first, and only they are exponentiated, sorted and summed.

#include "simd.h"
#include <stdlib.h>

#define BLOCK 64 // entries of the vocabulary whose maximum is compared first

typedef struct {
    const int64_t *seen; // ids that the repetition penalty applies to, (n_seen); may occur several times
    int64_t n_seen;
    double draw; // a random number from 0 to below 1
    float temperature, top_p, min_p, repetition_penalty;
    int32_t top_k, greedy;
} sampling;

enum result { NOT_FINITE = -1, NOT_FINITE_AFTER_PENALTY = -2 }; // in place of a token

// The workspace of a thread; (V) each, but maxima (V / BLOCK, rounded up). `ids`, `kept` and `weights` hold the
// candidates, in the order of ids: their scores and e^score.
typedef struct {
    float *scores, *kept, *weights, *sorted, *maxima;
    int32_t *ids;
} workspace;

static long blocks_of(long V) { return (V + BLOCK - 1) / BLOCK; }

// Floats of workspace for `sample`.
int64_t sample_workspace_floats(int64_t V, int32_t n_threads) { return n_threads * (5 * V + blocks_of(V)); }

static int descending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

// The k-th largest of n values, 1 <= k <= n, which are reordered (quickselect: Hoare 1961).
static float kth_largest(float *values, long n, long k) {
    long first = 0, last = n - 1;
    while (first < last) {
        const float pivot = values[first + (last - first) / 2];
        long i = first, j = last;
        while (i <= j) {
            while (values[i] > pivot) i++;
            while (values[j] < pivot) j--;
            if (i <= j) {
                const float swapped = values[i];
                values[i++] = values[j];
                values[j--] = swapped;
            }
        }
        if (k - 1 <= j) last = j;
        else if (k - 1 >= i) first = i;
        else break;
    }
    return values[k - 1];
}

// Writes the maximum of each block to `maxima`; returns the largest, or NaN if any score is NaN.
static float find_maxima(const float *scores, long V, float *maxima) {
    float maximum = -INFINITY;
    int has_nan = 0;
    for (long block = 0; block < blocks_of(V); block++) {
        const long begin = block * BLOCK, end = min_long(begin + BLOCK, V);
        float largest = -INFINITY;
        for (long i = begin; i < end; i++) {
            largest = scores[i] > largest ? scores[i] : largest;
            has_nan |= scores[i] != scores[i];
        }
        maxima[block] = largest;
        maximum = largest > maximum ? largest : maximum;
    }
    return has_nan ? NAN : maximum;
}

static int32_t first_of(const float *scores, long V, const float *maxima, float maximum) {
    long block = 0;
    while (maxima[block] != maximum) block++;
    for (long i = block * BLOCK; i < V; i++)
        if (scores[i] == maximum) return i;
    return 0;
}

// Divides positive scores of the ids that were seen by the penalty, and multiplies negative ones by it, once each.
static void penalize(const float *logits, const sampling *s, float *scores) {
    for (long i = 0; i < s->n_seen; i++) {
        const long id = s->seen[i];
        if (scores[id] == -INFINITY) continue; // banned
        const float score = logits[id];
        scores[id] = score < 0 ? score * s->repetition_penalty : score / s->repetition_penalty;
    }
}

// Keeps the candidates whose `values` are at least `bound`; returns how many. `values` is `kept` or `weights`.
static long keep_from(const float *values, float bound, long n, workspace *w) {
    long m = 0;
    for (long i = 0; i < n; i++) {
        if (values[i] < bound) continue;
        w->ids[m] = w->ids[i];
        w->weights[m] = w->weights[i];
        w->kept[m++] = w->kept[i];
    }
    return m;
}

// Makes candidates of the `top_k` largest scores, and of those equal to the last of them; of all with top_k 0, except
// those that are minus infinity. Returns how many.
static long collect(long top_k, long V, workspace *w) {
    const long n_blocks = blocks_of(V), k = top_k < V ? top_k : 0;
    float bound = -INFINITY;
    if (k && k <= n_blocks) { // at least k blocks, and so k scores, reach the k-th largest maximum
        memcpy(w->sorted, w->maxima, n_blocks * sizeof *w->sorted);
        bound = kth_largest(w->sorted, n_blocks, k);
    }
    long n = 0;
    for (long block = 0; block < n_blocks; block++) {
        if (w->maxima[block] < bound) continue;
        for (long i = block * BLOCK; i < min_long((block + 1) * BLOCK, V); i++) {
            if (w->scores[i] < bound || w->scores[i] == -INFINITY) continue;
            w->ids[n] = i;
            w->kept[n++] = w->scores[i];
        }
    }
    if (k && n > k) {
        memcpy(w->sorted, w->kept, n * sizeof *w->sorted);
        n = keep_from(w->kept, kth_largest(w->sorted, n, k), n, w);
    }
    for (long i = 0; i < n; i += WIDTH)
        store_partial(w->weights, i, n - i, exponential(load_partial(w->kept, i, n - i, FP32)), FP32);
    return n;
}

// The smallest weight of the likeliest candidates that together reach the probability `top_p`.
static float least_of_nucleus(float top_p, long n, workspace *w) {
    static const double floors[] = {1e-3, 1e-5, 0}; // as NUCLEUS_FLOORS: sorting all candidates takes long
    double sum = 0;
    for (long i = 0; i < n; i++) sum += w->weights[i];
    const double wanted = top_p * sum;
    long m = 0;
    for (int f = 0; f < 3; f++) {
        double reached = 0;
        m = 0;
        for (long i = 0; i < n; i++) {
            if (w->weights[i] < floors[f] * sum) continue;
            w->sorted[m++] = w->weights[i];
            reached += w->weights[i];
        }
        if (m && reached >= wanted) break;
    }
    qsort(w->sorted, m, sizeof *w->sorted, descending);
    double above = w->sorted[0];
    long i = 1;
    while (i < m && above < wanted) above += w->sorted[i++];
    return w->sorted[i - 1];
}

// One of the n candidates, drawn with their weights.
static int32_t draw_one(double draw, long n, const workspace *w) {
    double total = 0, reached = 0;
    for (long i = 0; i < n; i++) total += w->weights[i];
    const double target = draw * total;
    for (long i = 0; i < n; i++) {
        reached += w->weights[i];
        if (reached > target) return w->ids[i];
    }
    return w->ids[n - 1]; // the sums were rounded differently
}

static int64_t sample_row(
    const float *logits, long V, const int64_t *banned, long n_banned, const sampling *s, workspace *w
) {
    float maximum = find_maxima(logits, V, w->maxima);
    if (!isfinite(maximum)) return NOT_FINITE;
    memcpy(w->scores, logits, V * sizeof *logits);
    for (long i = 0; i < n_banned; i++) w->scores[banned[i]] = -INFINITY;
    if (s->repetition_penalty != 1) penalize(logits, s, w->scores);
    if (s->repetition_penalty != 1 || n_banned) maximum = find_maxima(w->scores, V, w->maxima);
    if (!isfinite(maximum)) return NOT_FINITE_AFTER_PENALTY;
    if (s->greedy) return first_of(w->scores, V, w->maxima, maximum);
    for (long i = 0; i < V; i++) w->scores[i] = (w->scores[i] - maximum) / s->temperature;
    for (long i = 0; i < blocks_of(V); i++) w->maxima[i] = (w->maxima[i] - maximum) / s->temperature;
    long n = collect(s->top_k, V, w);
    if (s->top_p < 1) n = keep_from(w->weights, least_of_nucleus(s->top_p, n, w), n, w);
    if (s->min_p > 0) n = keep_from(w->kept, (float)log((double)s->min_p), n, w);
    return draw_one(s->draw, n, w);
}

// tokens (B): the next token of each row of logits (B, V), or an `enum result`. The entries in `banned` are never
// chosen. A row's token does not depend on the other rows.
void sample(
    const float *logits, int64_t B, int64_t V, const int64_t *banned, int64_t n_banned, const sampling *settings,
    float *all, int32_t n_threads, int64_t *tokens
) {
#pragma omp parallel num_threads(n_threads)
    {
        float *own = all + thread_index() * (5 * V + blocks_of(V));
        workspace w = {own, own + V, own + 2 * V, own + 3 * V, own + 5 * V, (int32_t *)(own + 4 * V)};
#pragma omp for schedule(dynamic)
        for (long b = 0; b < B; b++) tokens[b] = sample_row(logits + b * V, V, banned, n_banned, &settings[b], &w);
    }
}
