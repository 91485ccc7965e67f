// Rows as `vectorized` and `fused` read them, 16 bytes at a time (a vector: 4 columns of float32, 8 of float16, 16 of int8,
// 32 of int4), and results as they write them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "launch.h"
#include "tables_args.h"

namespace gathered {

constexpr int kLanes = 32;
constexpr int kVectorBytes = 16;
constexpr int kRound = 128;  // columns that a warp adds up at a time: four results per lane, whatever the type of the row
constexpr unsigned kAll = 0xffffffffu;

__device__ __forceinline__ float2 low_high(unsigned two, __half) { return __half22float2(reinterpret_cast<__half2&>(two)); }
__device__ __forceinline__ float2 low_high(unsigned two, __nv_bfloat16) {
  return {__uint_as_float(two << 16), __uint_as_float(two & 0xffff0000u)};
}

// Byte `which` of `four` as a number: under the exponent of 2^23 its bits are the last of the mantissa. Three cheap
// instructions; a conversion would take a slow one.
__device__ __forceinline__ float byte_of(unsigned four, int which) {
  return __uint_as_float(__byte_perm(four, 0x4b000000u, 0x7440 | which)) - 8388608.0f;
}

// Warps of a block: fewer for narrower rows, for each costs the same to begin and end.
template <typename weight_t>
constexpr int kWarps = launch::kThreadsYOf<weight_t>;
static_assert(launch::kThreadsX == kLanes, "a row of a block's threads is a warp");

// A type of row: columns of a vector, loads in flight, resident warps of a multiprocessor (as many as leave the sums their
// registers; spilled ones cost more than resident warps gain), and how a vector widens.
template <typename weight_t>
struct Row {  // float16 and bfloat16
  static constexpr int kColumns = 8;
  static constexpr int kInFlight = 8;
  static constexpr int kResidentWarps = 24;
  static constexpr bool kQuantised = false, kTiled = false;
  __device__ static void widen(uint4 vector, float (&v)[kColumns]) {
    const unsigned word[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float2 two = low_high(word[i], weight_t());
      v[2 * i] = two.x, v[2 * i + 1] = two.y;
    }
  }
};
template <>
struct Row<float> {
  static constexpr int kColumns = 4;
  static constexpr int kInFlight = 8;
  static constexpr int kResidentWarps = 28;
  static constexpr bool kQuantised = false, kTiled = false;
  __device__ static void widen(uint4 vector, float (&v)[kColumns]) {
    v[0] = __uint_as_float(vector.x), v[1] = __uint_as_float(vector.y);
    v[2] = __uint_as_float(vector.z), v[3] = __uint_as_float(vector.w);
  }
};
template <>
struct Row<Int8Row> {
  static constexpr int kColumns = 16;
  static constexpr int kInFlight = 4;
  static constexpr int kResidentWarps = 24;
  static constexpr bool kQuantised = true, kTiled = false;
  __device__ static void widen(uint4 vector, float (&v)[kColumns]) {
    const unsigned word[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
    for (int i = 0; i < kColumns; i++) v[i] = byte_of(word[i / 4], i % 4);
  }
};
template <>
struct Row<Int4Row> {
  static constexpr int kColumns = 32;
  static constexpr int kInFlight = 4;
  static constexpr int kResidentWarps = 20;
  static constexpr bool kQuantised = true, kTiled = true;  // through the matrix units
  __device__ static void widen(uint4 vector, float (&v)[kColumns]) {
    const unsigned word[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
    for (int i = 0; i < kColumns; i++) v[i] = byte_of((i % 2 ? word[i / 8] >> 4 : word[i / 8]) & 0x0f0f0f0fu, i % 8 / 2);
  }
};

// Four results as the output holds them, in one store where `whole`; otherwise none past the last column. They are not
// read again here, and leave the caches to rows.
__device__ __forceinline__ unsigned packed(float a, float b, __half) {
  const __half2 two = __floats2half2_rn(a, b);
  return *reinterpret_cast<const unsigned*>(&two);
}
__device__ __forceinline__ unsigned packed(float a, float b, __nv_bfloat16) {
  const __nv_bfloat162 two = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const unsigned*>(&two);
}
template <bool whole, typename output_t>
__device__ __forceinline__ void store(output_t* at, float4 v, int columns_left) {
  if constexpr (!whole) {
    const float each[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (i < columns_left) at[i] = static_cast<output_t>(each[i]);
    }
  } else if constexpr (sizeof(output_t) == 4) {
    __stcs(reinterpret_cast<float4*>(at), v);
  } else {
    __stcs(reinterpret_cast<uint2*>(at), make_uint2(packed(v.x, v.y, output_t()), packed(v.z, v.w, output_t())));
  }
}

// The result of a bag from what its rows add up to: of an empty bag zero.
__device__ __forceinline__ float4 result(float4 sum, int mode, int counted) {
  if (counted == 0) return {0, 0, 0, 0};
  if (mode != LOOKUP_MEAN) return sum;
  const float n = static_cast<float>(counted);
  return {sum.x / n, sum.y / n, sum.z / n, sum.w / n};
}

}  // namespace gathered
