// Reads 512-byte rows and does nothing else: the most that a lookup of such rows could get out of the memory
// system. One warp reads a row at a time, 16 bytes a lane; a grid with a stride, eight rows in flight per warp.
//
// rows   [*, 32] float4        what is read
// order  [n] int               the row numbers to read
// sink   [1] float             never written in practice; keeps the compiler from dropping the reads
//
// The harness loads read_rows.ptx, which this file is compiled to (see tests/unit/bench/test_ceilings.py).

#define IN_FLIGHT 8

extern "C" __global__ void read_rows(const float4* rows, const int* order, int n, float* sink) {
  const int lane = threadIdx.x % 32;
  const int warps = gridDim.x * (blockDim.x / 32);
  const int warp = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  float sum = 0;
  for (int first = warp; first < n; first += warps * IN_FLIGHT) {
    // All row numbers first: waiting for each in turn would leave one row in flight, not eight.
    long long row[IN_FLIGHT];
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; ++i)
      row[i] = order[min(first + i * warps, n - 1)];  // at the end the last row again, rather than a branch
    float4 value[IN_FLIGHT];
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; ++i)
      value[i] = __ldcg(rows + row[i] * 32 + lane);  // past L1, which would keep some of a small set
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; ++i) sum += value[i].x + value[i].y + value[i].z + value[i].w;
  }
  if (sum == 1.2345678e30f) *sink = sum;
}
