// Prefetch into a buffer of the thread's own: a thread fetches the next `distance` rows of its bag all at once, puts
// them into the buffer, and adds them up out of it one by one, before it fetches the next. Where the buffer lies is
// what designs differ in.
//
// One thread: one column of one bag at a time. In flight per thread: `distance` rows while it fetches, none while it
// adds. The values pass through registers on their way into the buffer, but only there: while it adds, a thread holds
// none of them, so that it may look further ahead than with registers alone.
//
// Buffer<scalar_t, distance> has `put(k, value)` and `at(k)` for k below `distance`.
#pragma once

#include "bag_columns.cuh"

template <int distance, template <typename, int> class Buffer>
struct BufferedRows {
  static_assert(distance >= 1, "at least one row is fetched");

  template <typename scalar_t, typename index_t>
  __device__ __forceinline__ static void sum(const BagColumn<scalar_t, index_t>& bag, Sum& sum) {
    Buffer<scalar_t, distance> buffer;
    lookup_int64 position = bag.begin;
    for (; position + distance <= bag.end; position += distance) {
      fill<true>(bag, position, distance, buffer, sum);
      add_up(bag, position, distance, buffer, sum);
    }
    const int left = static_cast<int>(bag.end - position);
    fill<false>(bag, position, left, buffer, sum);
    add_up(bag, position, left, buffer, sum);
  }

 private:
  // Fetches `count` rows, at most `distance`, from `from` on; `whole`: as many as that. The row numbers are read and
  // checked first, all together: the fetches then follow without a wait in between.
  template <bool whole, typename scalar_t, typename index_t>
  __device__ __forceinline__ static void fill(const BagColumn<scalar_t, index_t>& bag, lookup_int64 from, int count,
                                              Buffer<scalar_t, distance>& buffer, Sum& sum) {
    index_t rows[distance];
    bool inside = true;
#pragma unroll
    for (int k = 0; k < distance; k++) {
      if (whole || k < count) {
        rows[k] = bag.row_at(from + k);
        inside = inside && bag.has(rows[k]);
      }
    }
    LOOKUP_ASSERT(inside, "every index is a row of the table");
#pragma unroll
    for (int k = 0; k < distance; k++) {
      if (whole || k < count) {
        buffer.put(k, bag.fetch(rows[k], sum));
      }
    }
  }

  // Not unrolled: with places known to it, the compiler would keep a local buffer's values in registers.
  template <typename scalar_t, typename index_t>
  __device__ __forceinline__ static void add_up(const BagColumn<scalar_t, index_t>& bag, lookup_int64 from, int count,
                                                Buffer<scalar_t, distance>& buffer, Sum& sum) {
#pragma unroll 1
    for (int k = 0; k < count; k++) {
      bag.add(from + k, buffer.at(k), sum);
    }
  }
};
