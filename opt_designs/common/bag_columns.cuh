// One thread per bag and column, as EmbeddingBag of PyTorch 2.1 divides the work. What differs between designs is
// only the order in which a thread fetches and adds the rows of its bag; each brings that as its `Order`.
//
// A row of the output is cut into chunks of blockDim.x (32) columns. One row of the block's threads, a warp, takes
// one chunk: 32 neighbouring columns of one bag, so that a warp reads 128 contiguous bytes of a float32 row. A block
// takes blockDim.y (8) neighbouring chunks, and strides over all chunks by the chunks of the whole grid. All
// addressing is 64 bits wide.
#pragma once

#include <cuda_fp16.h>

#include "assertion.cuh"
#include "lookup_args.h"

// What a thread gathers over one bag. Also for float16 it adds in float32.
struct Sum {
  float total;
  lookup_int64 counted;  // rows that are not padding
};

// One column of one bag: the part of the work that belongs to one thread at a time.
template <typename scalar_t, typename index_t>
struct BagColumn {
  const TypedLookupArgs<scalar_t, index_t>& args;
  lookup_int64 bag;
  lookup_int64 column;
  lookup_int64 begin;  // its indices are those from `begin` up to, not including, `end`
  lookup_int64 end;
  const scalar_t* weights;  // this column in row 0

  // The row number at `position` of the indices, not yet checked.
  __device__ __forceinline__ index_t row_at(lookup_int64 position) const {
    return args.indices[position];
  }

  // Whether the table has such a row. Unsigned, so that one comparison refuses negative row numbers too.
  __device__ __forceinline__ bool has(index_t row) const {
    return static_cast<unsigned long long>(row) < static_cast<unsigned long long>(args.rows);
  }

  // This column of `row`, which the table must have; zero for the padding row, which is not counted.
  __device__ __forceinline__ scalar_t fetch(index_t row, Sum& sum) const {
    const bool padding = row == static_cast<index_t>(args.padding_idx);
    const scalar_t value = weights[row * args.row_stride];
    sum.counted += padding ? 0 : 1;
    return padding ? static_cast<scalar_t>(0) : value;
  }

  // Adds the value fetched for `position`. The thread of column 0 notes for the backward pass whose index it is.
  __device__ __forceinline__ void add(lookup_int64 position, scalar_t value, Sum& sum) const {
    if (args.sample_weights) {
      const scalar_t sample_weight = args.sample_weights[position * args.sample_weight_stride];
      sum.total += static_cast<float>(sample_weight) * static_cast<float>(value);
    } else {
      sum.total += static_cast<float>(value);
    }
    if (args.offset2bag && column == 0) {
      args.offset2bag[position] = static_cast<index_t>(bag);
    }
  }
};

// Runs `Order::sum(BagColumn, Sum&)` for every bag and column that falls to this thread, and stores the results.
template <typename scalar_t, typename index_t, typename Order>
__device__ __forceinline__ void for_each_bag_column(const TypedLookupArgs<scalar_t, index_t>& args) {
  const lookup_int64 chunks_per_bag = (args.dim + blockDim.x - 1) / static_cast<lookup_int64>(blockDim.x);
  const lookup_int64 chunks = args.n_bags * chunks_per_bag;
  const lookup_int64 chunk_stride = gridDim.x * blockDim.y;

  for (lookup_int64 chunk = blockIdx.x * blockDim.y + threadIdx.y; chunk < chunks; chunk += chunk_stride) {
    const lookup_int64 column = (chunk % chunks_per_bag) * blockDim.x + threadIdx.x;
    if (column < args.dim) {
      const lookup_int64 bag = chunk / chunks_per_bag;
      // As in PyTorch, the first bag begins at the first index and the last ends with the last one, whatever the
      // offsets say.
      const lookup_int64 begin = bag == 0 ? 0 : static_cast<lookup_int64>(args.offsets[bag]);
      const lookup_int64 end = bag < args.n_bags - 1 ? static_cast<lookup_int64>(args.offsets[bag + 1]) : args.n_indices;
      LOOKUP_ASSERT(begin >= 0 && begin <= end && end <= args.n_indices, "offsets ascend within the indices");

      const scalar_t* weights = args.weights + column * args.column_stride;
      Sum sum = {0.0f, 0};
      Order::sum(BagColumn<scalar_t, index_t>{args, bag, column, begin, end, weights}, sum);

      if (args.mode == LOOKUP_MEAN && sum.counted != 0) {
        sum.total = sum.total / static_cast<float>(sum.counted);
      }
      if (args.bag_size) {
        args.bag_size[bag] = static_cast<index_t>(sum.counted);
      }
      args.output[bag * args.dim + column] = static_cast<scalar_t>(sum.total);
    }
  }
}
