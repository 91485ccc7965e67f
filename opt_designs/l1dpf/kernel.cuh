// Prefetch into L1: `prefetch.global.L1` for the row `distance` further on, then the next row is read and added.
//
// One thread: one column of one bag at a time; it holds no row ahead, only L1 does, as long as nothing displaces it.
// One warp: 32 neighbouring columns of that bag, one line of 128 bytes of a float32 row per prefetch. One block: 8
// warps, 8 neighbouring chunks of 32 columns; with 128 columns, two bags. The grid: 1,024 blocks that stride over all
// chunks. In flight: `distance` prefetches per thread, and the row that it waits for.
//
// `resident` blocks shall fit a multiprocessor, and the compiler keeps to the registers that leaves. Five blocks, 40
// warps, are what the paper's cap of 42 registers lets in: they may take 48. One block leaves the compiler free, as
// the paper's designs without OptMT.
#include "bag_columns.cuh"

namespace l1dpf {

constexpr int kThreads = 32 * 8;  // of a block, as design.toml has it

template <int distance>
struct RowsAhead {
  static_assert(distance >= 1, "at least one row is fetched ahead");

  template <typename scalar_t, typename index_t>
  __device__ __forceinline__ static void sum(const BagColumn<scalar_t, index_t>& bag, Sum& sum) {
#pragma unroll
    for (int k = 0; k < distance; k++) {
      prefetch(bag, bag.begin + k);
    }
    for (lookup_int64 position = bag.begin; position < bag.end; position++) {
      prefetch(bag, position + distance);
      bag.add(position, bag.fetch(bag.row_at(position), sum), sum);
    }
  }

 private:
  // Every row of a bag passes through here before it is read, and is checked here alone.
  template <typename scalar_t, typename index_t>
  __device__ __forceinline__ static void prefetch(const BagColumn<scalar_t, index_t>& bag, lookup_int64 position) {
    if (position < bag.end) {
      const index_t row = bag.row_at(position);
      LOOKUP_ASSERT(bag.has(row), "every index is a row of the table");
      const size_t address = __cvta_generic_to_global(bag.weights + row * bag.args.row_stride);
      asm volatile("prefetch.global.L1 [%0];" ::"l"(address));
    }
  }
};

}  // namespace l1dpf

template <typename scalar_t, typename index_t, int distance, int resident>
__global__ void __launch_bounds__(l1dpf::kThreads, resident) lookup(LOOKUP_PARAMETERS) {
  const TypedLookupArgs<scalar_t, index_t> args = LOOKUP_ARGUMENTS;
  for_each_bag_column<scalar_t, index_t, l1dpf::RowsAhead<distance>>(args);
}
