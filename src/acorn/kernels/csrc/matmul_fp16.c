// Matmuls of fp32 matrices in fp16. Called by matmul.py.

#include "matmul_fp16.h"

// c (count, M, N) = a (count, M, K) b (count, K, N), or that added to c. Strides are in elements: from matrix to
// matrix, row to row, column to column; one of the latter two is 1. bias, relu: as in `epilogue`, for all matrices.
// Returns 0, or 1 where memory ran out.
int32_t matmul_fp16(
    const float *a, int64_t a_matrix, int64_t a_row, int64_t a_column, const float *b, int64_t b_matrix, int64_t b_row,
    int64_t b_column, float *c, int64_t c_matrix, int64_t c_row, int64_t count, int64_t M, int64_t N, int64_t K,
    int32_t add, const float *bias, int32_t relu, int32_t n_threads
) {
    char *taken = malloc((long)n_threads * WORKSPACE_BYTES + LINE), *memory = next_line(taken);
    if (!taken) return 1;
    const epilogue then = {bias, relu};
    const int apart = count >= n_threads; // each thread takes matrices of its own
#pragma omp parallel num_threads(n_threads)
    {
        const int me = this_thread(), threads = thread_count(); // which may be fewer than asked for
        matmul_workspace work = matmul_workspace_in(memory + (long)me * WORKSPACE_BYTES);
        if (!apart) work.right = matmul_workspace_in(memory).right; // they share what is packed of b
        for (long i = apart ? me : 0; i < count; i += apart ? threads : 1) {
            const strided from = {a + i * a_matrix, a_row, a_column}, by = {b + i * b_matrix, b_row, b_column};
            float *to = c + i * c_matrix;
            matmul_share(from, by, to, c_row, M, N, K, add, then, &work, apart ? 0 : me, apart ? 1 : threads);
        }
    }
    free(taken);
    return 0;
}

// Whether this CPU multiplies fp16 itself, instead of by way of fp32.
int32_t multiplies_fp16(void) {
#ifdef __AVX512FP16__
    return 1;
#else
    return 0;
#endif
}
