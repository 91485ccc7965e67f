// Prefetch into shared memory.
//
// One thread: one column of one bag at a time; it fetches the next `distance` rows' values of that column into places
// of its own in shared memory, and adds them up from there. No thread reads another's places, so nothing has to wait
// for a barrier. One warp: 32 neighbouring columns of that bag, next to each other in shared memory too, one per bank.
// One block: 8 warps, 8 neighbouring chunks of 32 columns; with 128 columns, two bags; `distance` KiB of shared memory
// for float32, which L1 has to do without. The grid: 1,024 blocks that stride over all chunks. In flight: `distance`
// rows per thread while it fetches.
//
// `resident` blocks shall fit a multiprocessor, and the compiler keeps to the registers that leaves. Five blocks, 40
// warps, are what the paper's cap of 42 registers lets in: they may take 48. One block leaves the compiler free, as
// the paper's designs without OptMT.
#include "buffered_rows.cuh"

namespace smpf {

constexpr int kThreads = 32 * 8;  // of a block, as design.toml has it

template <typename scalar_t, int distance>
struct SharedBuffer {
  scalar_t (&places)[distance][kThreads];
  int thread;

  __device__ __forceinline__ SharedBuffer() : places(shared()), thread(threadIdx.y * blockDim.x + threadIdx.x) {}
  __device__ __forceinline__ void put(int k, scalar_t value) { places[k][thread] = value; }
  __device__ __forceinline__ scalar_t at(int k) const { return places[k][thread]; }

 private:
  __device__ __forceinline__ static scalar_t (&shared())[distance][kThreads] {
    __shared__ scalar_t places[distance][kThreads];
    return places;
  }
};

}  // namespace smpf

template <typename scalar_t, typename index_t, int distance, int resident>
__global__ void __launch_bounds__(smpf::kThreads, resident) lookup(LOOKUP_PARAMETERS) {
  const TypedLookupArgs<scalar_t, index_t> args = LOOKUP_ARGUMENTS;
  for_each_bag_column<scalar_t, index_t, BufferedRows<distance, smpf::SharedBuffer>>(args);
}
