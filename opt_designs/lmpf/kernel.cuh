// Prefetch into local memory.
//
// One thread: one column of one bag at a time; it fetches the next `distance` rows' values of that column into its
// local memory, which L1 holds, and adds them up from there. One warp: 32 neighbouring columns of that bag. One block:
// 8 warps, 8 neighbouring chunks of 32 columns; with 128 columns, two bags. The grid: 1,024 blocks that stride over all
// chunks. In flight: `distance` rows per thread while it fetches.
//
// `resident` blocks shall fit a multiprocessor, and the compiler keeps to the registers that leaves. Five blocks, 40
// warps, are what the paper's cap of 42 registers lets in: they may take 48. One block leaves the compiler free, as
// the paper's designs without OptMT.
#include "buffered_rows.cuh"

namespace lmpf {

constexpr int kThreads = 32 * 8;  // of a block, as design.toml has it

// An array that is read at places which the compiler does not know lies in local memory.
template <typename scalar_t, int distance>
struct LocalBuffer {
  scalar_t places[distance];

  __device__ __forceinline__ void put(int k, scalar_t value) { places[k] = value; }
  __device__ __forceinline__ scalar_t at(int k) const { return places[k]; }
};

}  // namespace lmpf

template <typename scalar_t, typename index_t, int distance, int resident>
__global__ void __launch_bounds__(lmpf::kThreads, resident) lookup(LOOKUP_PARAMETERS) {
  const TypedLookupArgs<scalar_t, index_t> args = LOOKUP_ARGUMENTS;
  for_each_bag_column<scalar_t, index_t, BufferedRows<distance, lmpf::LocalBuffer>>(args);
}
