// Register prefetch: a thread holds the values of the next `distance` rows of its bag in registers. It adds one,
// and has the same register filled with the row `distance` further on before it adds the next.
//
// One thread: one column of one bag at a time. One warp: 32 neighbouring columns of that bag. One block: 8 warps,
// 8 neighbouring chunks of 32 columns; with 128 columns, two bags. The grid has a fixed number of blocks and strides
// over the chunks. In flight per thread: `distance` rows, and between groups the row numbers of `distance` more.
#pragma once

#include "bag_columns.cuh"

template <int distance>
struct PrefetchedRows {
  static_assert(distance >= 1, "at least one row is held");

  template <typename scalar_t, typename index_t>
  __device__ __forceinline__ static void sum(const BagColumn<scalar_t, index_t>& bag, Sum& sum) {
    scalar_t held[distance];
    refill<false>(bag, bag.begin, held, sum, [](int) {});

    lookup_int64 position = bag.begin;
    // While both this group and the next are whole, nothing needs to be compared with the bag's end.
    for (; position + 2 * distance <= bag.end; position += distance) {
      refill<true>(bag, position + distance, held, sum, [&](int k) { bag.add(position + k, held[k], sum); });
    }
    for (; position < bag.end; position += distance) {
      refill<false>(bag, position + distance, held, sum, [&](int k) {
        if (position + k < bag.end) {
          bag.add(position + k, held[k], sum);
        }
      });
    }
  }

 private:
  // For each of the held values: `use` it, then replace it by that of the row at `from` + k, where the bag has one.
  // The row numbers are read and checked first, all together: the fetches then follow without a wait in between.
  template <bool whole, typename scalar_t, typename index_t, typename Use>
  __device__ __forceinline__ static void refill(const BagColumn<scalar_t, index_t>& bag, lookup_int64 from,
                                                scalar_t (&held)[distance], Sum& sum, const Use& use) {
    index_t rows[distance];
    bool inside = true;
#pragma unroll
    for (int k = 0; k < distance; k++) {
      if (whole || from + k < bag.end) {
        rows[k] = bag.row_at(from + k);
        inside = inside && bag.has(rows[k]);
      }
    }
    LOOKUP_ASSERT(inside, "every index is a row of the table");
#pragma unroll
    for (int k = 0; k < distance; k++) {
      use(k);
      if (whole || from + k < bag.end) {
        held[k] = bag.fetch(rows[k], sum);
      }
    }
  }
};

template <typename scalar_t, typename index_t, int distance>
__global__ void lookup(LOOKUP_PARAMETERS) {
  const TypedLookupArgs<scalar_t, index_t> args = LOOKUP_ARGUMENTS;
  for_each_bag_column<scalar_t, index_t, PrefetchedRows<distance>>(args);
}
