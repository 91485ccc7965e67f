// The sum of the four-bit rows of one bag by the matrix units: widened and scaled one by one, their values would keep a warp
// busy for longer than memory takes to bring them. (Rows of eight bits gain nothing by it: a warp's load would touch four
// times as many lines at a time.)
//
// In a multiply_add of 16 × 16 by 16 × 8 values, a is 16 columns by 16 rows of the table, two rows' values side by side in
// each word, and b is the rows' scales. Lane 4g + c loads of 16 rows the columns 16g to 16g + 15 of the rows 4c to 4c + 3;
// every two columns make one of eight tiles with those of the other lanes. Values are made signed by the middle of their
// range, which keeps sums small; a row's bias makes up for it.
#pragma once

#include "row_types.cuh"

#include "instructions.cuh"

namespace gathered {

constexpr int kTiles = 8, kTileRows = 16, kTileBytes = 8;  // of 16 columns

// What rows add up to, in tiles. A lane's two columns of each are in its sum[0] and sum[2], and the same in the three lanes
// beside it.
struct TiledSum {
  static constexpr unsigned kOnes = 0x3c003c00u, kMiddle = 0x48004800u;  // two float16 1, and 8
  float sum[kTiles][4], biases[4];

  __device__ __forceinline__ TiledSum() {
#pragma unroll
    for (int i = 0; i < kTiles; i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0;
    biases[0] = biases[1] = biases[2] = biases[3] = 0;
  }

  // Four rows of this lane's, each with scale and bias; nought for both where there is no row.
  __device__ __forceinline__ void add(const uint2 (&row)[4], const unsigned (&scale)[4]) {
    const unsigned b0 = __byte_perm(scale[0], scale[1], 0x5410), b1 = __byte_perm(scale[2], scale[3], 0x5410);
    const unsigned one[4] = {kOnes, kOnes, kOnes, kOnes};
    const unsigned middle[4] = {kMiddle, kMiddle, kMiddle, kMiddle};
    multiply_add(biases, one, __byte_perm(scale[0], scale[1], 0x7632), __byte_perm(scale[2], scale[3], 0x7632));
    multiply_add(biases, middle, b0, b1);
#pragma unroll
    for (int n = 0; n < kTiles; n++) {
      const bool second = n >= kTiles / 2;
      const unsigned pairs = n / 2 % 2 ? 0x7632 : 0x5410;  // two bytes of either row
      unsigned low = __byte_perm(second ? row[0].y : row[0].x, second ? row[1].y : row[1].x, pairs);
      unsigned high = __byte_perm(second ? row[2].y : row[2].x, second ? row[3].y : row[3].x, pairs);
      if (n % 2) low >>= 8, high >>= 8;
      const unsigned a[4] = {lower(low), upper(low), lower(high), upper(high)};
      multiply_add(sum[n], a, b0, b1);
    }
  }
  // Columns of two rows, less 8. Four bits at the end of the float16 1024 are 1024 more than their value; four bits further
  // up, 1024 and 16 times it.
  __device__ __forceinline__ static unsigned lower(unsigned two) {
    return fma_halves((two & 0x000f000fu) | 0x64006400u, kOnes, 0xe408e408u);  // less 1032
  }
  __device__ __forceinline__ static unsigned upper(unsigned two) {
    return fma_halves((two & 0x00f000f0u) | 0x64006400u, 0x2c002c00u, 0xd480d480u);  // a sixteenth, less 72
  }

  // Of the lane's 16 columns the four from 4c on.
  __device__ __forceinline__ float4 finish() const {
    const float bias = biases[0];
    return {chosen(0, 0) + bias, chosen(0, 2) + bias, chosen(1, 0) + bias, chosen(1, 2) + bias};
  }
  __device__ __forceinline__ float chosen(int first, int of) const {
    const unsigned c = threadIdx.x % 4;
    const float low = c & 1 ? sum[first + 2][of] : sum[first][of], high = c & 1 ? sum[first + 6][of] : sum[first + 4][of];
    return c & 2 ? high : low;
  }
};

}  // namespace gathered
