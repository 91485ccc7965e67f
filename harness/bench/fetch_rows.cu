// Fetches rows at given addresses, in their order, writes as much as their lookup would, and does nothing else: no sums, no
// bags, no tables and no checks. A warp takes 64 addresses, and those of a grid go through them side by side.
//
// at      [n] addresses    of rows, each of `vectors` times 16 bytes and at a multiple of 16
// lanes                    that share a row, a power of two from 4 to 32; with more vectors they come round again
// output  [n_output] uint4 of chunks of 64 rows the same share each; all that was read, by exclusive or, so that nothing can be left out
//
// The harness loads fetch_rows.ptx, which this file is compiled to (see tests/unit/bench/test_fetched_rows.py).

#define CHUNK 64
#define WARPS 8

template <int in_flight>
__device__ __forceinline__ void fetch(const unsigned long long* at, int n, int lanes, int vectors, uint4* output, int n_output) {
  const int lane = threadIdx.x % 32, team = lane / lanes, teams = 32 / lanes;
  const int chunks = (n + CHUNK - 1) / CHUNK, each = (n_output + chunks - 1) / chunks;
  for (int chunk = (threadIdx.x / 32) * gridDim.x + blockIdx.x; chunk < chunks; chunk += gridDim.x * WARPS) {
    // At the end the last row again, rather than a branch.
    const unsigned long long first = at[min(chunk * CHUNK + lane, n - 1)], second = at[min(chunk * CHUNK + 32 + lane, n - 1)];
    uint4 seen = {0, 0, 0, 0};
#pragma unroll 1
    for (int vector = lane % lanes; vector < vectors; vector += lanes) {
#pragma unroll 1
      for (int i = 0; i < CHUNK; i += in_flight * teams) {
        uint4 value[in_flight];
#pragma unroll
        for (int k = 0; k < in_flight; k++) {
          const int row = i + k * teams + team;
          const unsigned long long low = __shfl_sync(~0u, first, row % 32), high = __shfl_sync(~0u, second, row % 32);
          value[k] = __ldg(reinterpret_cast<const uint4*>(row < 32 ? low : high) + vector);
        }
#pragma unroll
        for (int k = 0; k < in_flight; k++) {
          seen.x ^= value[k].x, seen.y ^= value[k].y, seen.z ^= value[k].z, seen.w ^= value[k].w;
        }
      }
    }
    for (int i = chunk * each + lane; i < min((chunk + 1) * each, n_output); i += 32) output[i] = seen;
  }
}

// The more rows a warp has in flight, the fewer warps are resident.
#define FETCH(name, in_flight, resident)                                                                                        \
  extern "C" __global__ void __launch_bounds__(WARPS * 32, resident)                                                            \
      name(const unsigned long long* at, int n, int lanes, int vectors, uint4* output, int n_output) {                          \
    fetch<in_flight>(at, n, lanes, vectors, output, n_output);                                                                  \
  }
FETCH(fetch_4_of_48, 4, 6)
FETCH(fetch_8_of_32, 8, 4)
FETCH(fetch_8_of_24, 8, 3)
