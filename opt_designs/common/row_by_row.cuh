// The baseline's lookup: a thread fetches a row, adds it, and goes on to the next.
//
// One thread: one column of one bag at a time. One warp: 32 neighbouring columns of that bag. One block: 8 warps,
// 8 neighbouring chunks of 32 columns; with 128 columns, two bags. The grid has a fixed number of blocks and strides
// over the chunks. In flight per thread: the rows that the compiler overlaps by unrolling this loop, which is up to
// it and to the registers it may take.
#pragma once

#include "bag_columns.cuh"

struct RowByRow {
  template <typename scalar_t, typename index_t>
  __device__ __forceinline__ static void sum(const BagColumn<scalar_t, index_t>& bag, Sum& sum) {
    for (lookup_int64 position = bag.begin; position < bag.end; position++) {
      const index_t row = bag.row_at(position);
      LOOKUP_ASSERT(bag.has(row), "every index is a row of the table");
      bag.add(position, bag.fetch(row, sum), sum);
    }
  }
};

template <typename scalar_t, typename index_t>
__global__ void lookup(const __grid_constant__ LookupArgs args) {
  for_each_bag_column<scalar_t, index_t, RowByRow>(args);
}
