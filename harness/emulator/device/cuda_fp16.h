// A stand-in for CUDA on the host's C++ compiler, so that device code runs without a GPU. Enough of the language for
// the lookups here: their types, their words for one thread, and in warps.h those for threads that work together.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>

#include "memory.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static  // one block at a time
#define __constant__ static

struct Index3 {
  unsigned int x = 1, y = 1, z = 1;
};
inline Index3 gridDim, blockDim, blockIdx, threadIdx;
constexpr int warpSize = 32;

template <typename T>
struct alignas(2 * sizeof(T)) Two {
  T x, y;
};
template <typename T>
struct alignas(4 * sizeof(T)) Four {
  T x, y, z, w;
};
typedef Two<int> int2;
typedef Two<unsigned> uint2;
typedef Two<float> float2;
typedef Two<long long> longlong2;
typedef Four<int> int4;
typedef Four<unsigned> uint4;
typedef Four<float> float4;
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

typedef _Float16 __half;
typedef __half half;
struct alignas(4) __half2 {
  __half x, y;
};
typedef __half2 half2;
inline float __half2float(__half value) { return static_cast<float>(value); }
inline __half __float2half(float value) { return static_cast<__half>(value); }
inline __half __float2half_rn(float value) { return static_cast<__half>(value); }
inline float2 __half22float2(__half2 two) { return {static_cast<float>(two.x), static_cast<float>(two.y)}; }
inline __half2 __floats2half2_rn(float a, float b) { return {static_cast<__half>(a), static_cast<__half>(b)}; }

struct __nv_bfloat16 {
  std::uint16_t bits = 0;
  __nv_bfloat16() = default;
  __nv_bfloat16(float value) {  // NOLINT(runtime/explicit): as CUDA's. To the nearest, ties to even
    const auto whole = std::bit_cast<std::uint32_t>(value);
    bits = static_cast<std::uint16_t>((whole + 0x7fff + (whole >> 16 & 1)) >> 16);
  }
  operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline float __bfloat162float(__nv_bfloat16 value) { return value; }
inline __nv_bfloat16 __float2bfloat16(float value) { return value; }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {a, b}; }

template <typename A, typename B>
constexpr auto min(A a, B b) {
  return std::min<std::common_type_t<A, B>>(a, b);
}
template <typename A, typename B>
constexpr auto max(A a, B b) {
  return std::max<std::common_type_t<A, B>>(a, b);
}

template <typename T>
T __ldg(const T* at) {
  return *at;
}
template <typename T>
T __ldcg(const T* at) {
  return *at;
}
template <typename T>
T __ldcs(const T* at) {
  return *at;
}
template <typename T>
void __stcg(T* at, T value) {
  *at = value;
}
template <typename T>
void __stcs(T* at, T value) {
  *at = value;
}
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __clz(unsigned bits) { return std::countl_zero(bits); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32);
}
inline int __ffs(unsigned bits) { return bits == 0 ? 0 : std::countr_zero(bits) + 1; }
// Each four bits of the selector name a byte: 0 to 3 of `low`, 4 to 7 of `high`.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const std::uint64_t both = static_cast<std::uint64_t>(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) result |= static_cast<unsigned>(both >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return result;
}

inline size_t __cvta_generic_to_global(const void* address) { return reinterpret_cast<size_t>(address); }

#include "warps.h"
