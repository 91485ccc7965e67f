// What CUDA's C++ has no word for, an instruction each. Nothing else here is written in PTX, so that all the rest runs on
// the CPU too, where tests put their own in the place of this file.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// Read once: such lines would only push rows out of L1. Volatile, or the compiler would read before it is known that
// there is something to read.
__device__ __forceinline__ long long read_once(const long long* at) {
  long long value;
  asm volatile("ld.global.nc.L1::no_allocate.b64 %0, [%1];" : "=l"(value) : "l"(at));
  return value;
}
__device__ __forceinline__ int read_once(const int* at) {
  int value;
  asm volatile("ld.global.nc.L1::no_allocate.b32 %0, [%1];" : "=r"(value) : "l"(at));
  return value;
}

// Sixteen, eight or four bytes of a row. Volatile, so that of several loads none waits for what is done with another.
__device__ __forceinline__ void load(uint4& value, const void* at) {
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w) : "l"(at));
}
__device__ __forceinline__ void load(uint2& value, const void* at) {
  asm volatile("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "l"(at));
}
__device__ __forceinline__ void load(unsigned& value, const void* at) {
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(value) : "l"(at));
}

// A pointer whose origin the compiler forgets: it stays one register pair to which offsets are added, instead of being
// computed anew for every use.
template <typename T>
__device__ __forceinline__ const T* kept(const T* pointer) {
  asm("" : "+l"(pointer));
  return pointer;
}

// sum += a × b, of 16 × 16 and 16 × 8 float16, by a warp's matrix units, after loads that stand before it. Lane 4g + c holds of a the values (g, 2c) and
// (g, 2c + 1) in a[0], those of row g + 8 in a[1], the same of columns 2c + 8 and 2c + 9 in a[2] and a[3]; of b the values
// (2c, g), (2c + 1, g) and (2c + 8, g), (2c + 9, g); of the sum (g, 2c), (g, 2c + 1), (g + 8, 2c), (g + 8, 2c + 1).
__device__ __forceinline__ void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two float16 at once: x × y + z.
__device__ __forceinline__ unsigned fma_halves(unsigned x, unsigned y, unsigned z) {
  unsigned result;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(x), "r"(y), "r"(z));
  return result;
}

// Copies to shared memory that nobody waits for until `wait_for_copies`: then this thread's own have arrived. Four, eight or
// sixteen bytes, at multiples of as many.
template <typename T>
__device__ __forceinline__ void copy_later(T* shared, const T* global) {
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(sizeof(T)) : "memory");
}
__device__ __forceinline__ void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// 1 / x of a positive number, to the last bit or the one before, without the branches of a division.
__device__ __forceinline__ float reciprocal(float x) {
  float guess;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(guess) : "f"(x));
  return fmaf(guess, fmaf(-x, guess, 1.0f), guess);
}
