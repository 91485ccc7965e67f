// The baseline's lookup, as EmbeddingBag of PyTorch 2.1 does it: a thread fetches a row, adds it, goes on to the next.
//
// One thread: one column of one bag at a time. One warp: 32 neighbouring columns of that bag. One block: 8 warps,
// 8 neighbouring chunks of 32 columns; with 128 columns, two bags. The grid has a fixed number of blocks and strides
// over the chunks. In flight per thread: the rows that the compiler overlaps by unrolling the inner loop, which is up
// to it and to the registers it may take.
//
// Flat on purpose, with every index read where it is used: in this shape the compiler of the paper's day makes of it
// what it made of PyTorch's source (74 registers on sm_80 and sm_90, a loop with per-sample weights and one without,
// four rows unrolled). The frame that the prefetching designs share gives it 80, or one loop with the branch inside.
#pragma once

#include <cuda_fp16.h>

#include "assertion.cuh"
#include "lookup_args.h"

template <typename scalar_t, typename index_t>
__global__ void lookup(LOOKUP_PARAMETERS) {
  const index_t absent = static_cast<index_t>(padding_idx);
  const lookup_int64 chunks_per_bag = (dim + blockDim.x - 1) / static_cast<lookup_int64>(blockDim.x);
  const lookup_int64 chunks = n_bags * chunks_per_bag;
  const lookup_int64 chunk_stride = gridDim.x * blockDim.y;

  for (lookup_int64 chunk = blockIdx.x * blockDim.y + threadIdx.y; chunk < chunks; chunk += chunk_stride) {
    const lookup_int64 column = (chunk % chunks_per_bag) * blockDim.x + threadIdx.x;
    if (column < dim) {
      const lookup_int64 bag = chunk / chunks_per_bag;
      const scalar_t* values = weights + column * column_stride;
      // As in PyTorch, the first bag begins at the first index and the last ends with the last one, whatever the
      // offsets say.
      const lookup_int64 begin = bag == 0 ? 0 : static_cast<lookup_int64>(offsets[bag]);
      const lookup_int64 end = bag < n_bags - 1 ? static_cast<lookup_int64>(offsets[bag + 1]) : n_indices;
      LOOKUP_ASSERT(begin >= 0 && begin <= end && end <= n_indices, "offsets ascend within the indices");

      float sum = 0.0f;  // also for float16
      lookup_int64 counted = 0;
      for (lookup_int64 position = begin; position < end; position++) {
        const bool padding = indices[position] == absent;
        // Unsigned, so that one comparison refuses negative row numbers too.
        LOOKUP_ASSERT(static_cast<unsigned long long>(indices[position]) < static_cast<unsigned long long>(rows),
                      "every index is a row of the table");
        const scalar_t fetched = values[indices[position] * row_stride];
        const scalar_t value = padding ? static_cast<scalar_t>(0) : fetched;
        if (sample_weights) {
          const scalar_t scale = sample_weights[position * sample_weight_stride];
          sum += static_cast<float>(scale) * static_cast<float>(value);
        } else {
          sum += static_cast<float>(value);
        }
        counted += padding ? 0 : 1;
        if (offset2bag && column == 0) {
          offset2bag[position] = static_cast<index_t>(bag);
        }
      }
      if (mode == LOOKUP_MEAN && counted != 0) {
        sum = sum / static_cast<float>(counted);
      }
      if (bag_size) {
        bag_size[bag] = static_cast<index_t>(counted);
      }
      output[bag * dim + column] = static_cast<scalar_t>(sum);
    }
  }
}
