// How a warp adds up the rows of a list, over 128 columns: in steps of some rows, several steps' loads in flight together.
// A lane has four columns, and 32 or fewer lanes share a row.
#pragma once

#include "order.cuh"

namespace fused {
namespace large {

using gathered::kRound;

// `whole`: dims are multiples of 128, and every lane has columns of every row.
template <bool whole>
struct Accumulator {
  // Steps in flight while memory is idle, and while it is not: 12 or 8 rows of 512 bytes.
  static constexpr int kFast = 6, kSlow = 4;
  struct Vectors {
    uint4 row[2];
  };

  int across;  // lanes that share a row
  int column;  // the lane's first; -1: it has none
  const char* first;
  unsigned row_bytes;
  float4 sum;

  __device__ __forceinline__ explicit Accumulator(int dim) : across(kLanes) {
    if (!whole) {
      while (across > 8 && across / 2 * 4 >= dim) across /= 2;
    }
  }
  __device__ __forceinline__ int rows_of_step() const { return whole ? 2 : 2 * kLanes / across; }
  // Of the rows of a step the lane's first; the other follows.
  __device__ __forceinline__ int mine() const { return whole ? 0 : static_cast<int>(threadIdx.x) / across * 2; }

  __device__ __forceinline__ void begin(const char* weights, unsigned bytes_of_row, int from, int dim) {
    column = from + (whole ? static_cast<int>(threadIdx.x) : static_cast<int>(threadIdx.x) % across) * 4;
    if (!whole && column >= dim) column = -1;
    first = kept(weights + max(column, 0) * 4);
    row_bytes = bytes_of_row;
    sum = {0, 0, 0, 0};
  }

  __device__ __forceinline__ void load(Vectors& vectors, const List& list, int i) const {
    const uint2 rows = *reinterpret_cast<const uint2*>(list.rows + i + mine());
    ::load(vectors.row[0], first + static_cast<unsigned long long>(row_bytes) * rows.x);
    ::load(vectors.row[1], first + static_cast<unsigned long long>(row_bytes) * rows.y);
  }

  // All rows of a step, or the first `left` of them.
  template <bool some>
  __device__ __forceinline__ void add(const Vectors& vectors, int left) {
#pragma unroll
    for (int k = 0; k < 2; k++) {
      if (!some || mine() + k < left) {
        sum.x += __uint_as_float(vectors.row[k].x), sum.y += __uint_as_float(vectors.row[k].y);
        sum.z += __uint_as_float(vectors.row[k].z), sum.w += __uint_as_float(vectors.row[k].w);
      }
    }
  }

  // The lane's four sums, once those of other lanes' rows are in.
  __device__ __forceinline__ float4 finish() {
    if (!whole) {
#pragma unroll 1
      for (int apart = across; apart < kLanes; apart *= 2) {
        sum.x += __shfl_xor_sync(kAll, sum.x, apart), sum.y += __shfl_xor_sync(kAll, sum.y, apart);
        sum.z += __shfl_xor_sync(kAll, sum.z, apart), sum.w += __shfl_xor_sync(kAll, sum.w, apart);
      }
    }
    return sum;
  }

  // Writes what `finish` returned, or what has become of it, to the output row of a table and bag.
  template <typename output_t>
  __device__ __forceinline__ void store(output_t* row, float4 values) const {
    if (whole || (column >= 0 && static_cast<int>(threadIdx.x) < across)) gathered::store<true>(row + column, values, 4);
  }
};

}  // namespace large
}  // namespace fused
