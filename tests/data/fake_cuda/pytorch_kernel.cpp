// PyTorch's own kernel as the emulator makes one: the baseline's sums, under PyTorch's names and with its parameters in
// its order, the padding index as wide as an index.
#include "cuda_fp16.h"
#include "entries.h"
#include "row_by_row.cuh"

template <typename index_t>
void of_pytorch(const index_t* indices, const index_t* offsets, const float* weights, float* output,
                index_t* offset2bag, std::int64_t n_indices, std::int64_t n_bags, std::int64_t dim,
                std::int64_t row_stride, std::int64_t column_stride, int mode, index_t* bag_size,
                const float* sample_weights, std::int64_t sample_weight_stride, index_t padding_idx,
                std::int64_t rows) {
  lookup<float, index_t>(weights, indices, offsets, sample_weights, output, offset2bag, bag_size, n_indices, n_bags,
                         dim, rows, row_stride, column_stride, sample_weight_stride, padding_idx, mode);
}

EMULATED_KERNEL(INT32_SYMBOL, of_pytorch<int>)
EMULATED_KERNEL(INT64_SYMBOL, of_pytorch<std::int64_t>)
