// Batched matmul of fp32 matrices, computed in fp16. Called by matmul.py.

#include "matmul_fp16.h"

// c (count, M, N) = a (count, M, K) b (count, K, N); with `add`, += instead of =. Strides are in elements, between
// matrices, rows and columns; the row or the column stride is 1. bias, relu: see `epilogue`; the same for all matrices.
// Returns 0, or 1 if memory could not be allocated.
int32_t matmul_fp16(
    const float *a, int64_t a_matrix, int64_t a_row, int64_t a_column, const float *b, int64_t b_matrix, int64_t b_row,
    int64_t b_column, float *c, int64_t c_matrix, int64_t c_row, int64_t count, int64_t M, int64_t N, int64_t K,
    int32_t add, const float *bias, int32_t relu, int32_t n_threads
) {
    char *allocation = malloc((long)n_threads * WORKSPACE_BYTES + CACHE_LINE);
    char *workspace = align_to_cache_line(allocation);
    if (!allocation) return 1;
    const epilogue epi = {bias, relu};
    const int batched = count >= n_threads; // each thread computes whole matrices; otherwise threads share each matrix
#pragma omp parallel num_threads(n_threads)
    {
        const int thread = thread_index(), threads = thread_count(); // may be fewer than requested
        matmul_workspace work = matmul_workspace_in(workspace + (long)thread * WORKSPACE_BYTES);
        if (!batched) work.packed_b = matmul_workspace_in(workspace).packed_b; // one packed b for all threads
        for (long i = batched ? thread : 0; i < count; i += batched ? threads : 1) {
            const strided a_i = {a + i * a_matrix, a_row, a_column}, b_i = {b + i * b_matrix, b_row, b_column};
            float *c_i = c + i * c_matrix;
            matmul_worker(a_i, b_i, c_i, c_row, M, N, K, add, epi, &work, batched ? 0 : thread, batched ? 1 : threads);
        }
    }
    free(allocation);
    return 0;
}

// Whether this was compiled to fp16 instructions; otherwise fp16 is converted to fp32 and back.
int32_t has_fp16_instructions(void) {
#ifdef __AVX512FP16__
    return 1;
#else
    return 0;
#endif
}
