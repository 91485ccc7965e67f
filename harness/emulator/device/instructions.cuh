// What opt_designs/common/instructions.cuh says in PTX.
#pragma once
#include "cuda_fp16.h"

template <typename T>
T read_once(const T* at) { return *at; }
template <typename T>
void load(T& value, const void* at) {
  emulated::check_alignment(at, sizeof(value));
  std::memcpy(&value, at, sizeof(value));
}
// At once: a kernel that reads such a copy before it has waited is not found out here.
template <typename T>
void copy_later(T* shared, const T* global) {
  emulated::check_alignment(shared, sizeof(T));
  load(*shared, global);
}
inline void wait_for_copies() {}
inline float reciprocal(float x) { return 1 / x; }
template <typename T>
const T* kept(const T* pointer) { return pointer; }

inline float2 halves(unsigned two) { return __half22float2(std::bit_cast<__half2>(two)); }

// From the layout of fragments in the PTX manual, not from the comment in that file.
inline void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  struct Given { unsigned a[4], b[2]; };
  const Given* const all = emulated::exchange(emulated::kWhole, Given{{a[0], a[1], a[2], a[3]}, {b0, b1}});
  float left[16][16], right[16][8];
  for (unsigned lane = 0; lane < 32; lane++) {
    const unsigned group = lane >> 2, in_group = lane % 4;
    for (unsigned i = 0; i < 4; i++) {
      const float2 two = halves(all[lane].a[i]);
      const unsigned row = i % 2 ? group + 8 : group, column = in_group * 2 + (i >= 2 ? 8 : 0);
      left[row][column] = two.x, left[row][column + 1] = two.y;
    }
    for (unsigned i = 0; i < 2; i++) {
      const float2 two = halves(all[lane].b[i]);
      right[in_group * 2 + 8 * i][group] = two.x, right[in_group * 2 + 8 * i + 1][group] = two.y;
    }
  }
  for (unsigned i = 0; i < 4; i++) {
    const unsigned row = (emulated::lane() >> 2) + (i >= 2 ? 8 : 0), column = emulated::lane() % 4 * 2 + i % 2;
    for (unsigned k = 0; k < 16; k++) sum[i] += left[row][k] * right[k][column];
  }
}

inline unsigned fma_halves(unsigned x, unsigned y, unsigned z) {
  const float2 a = halves(x), b = halves(y), c = halves(z);
  return std::bit_cast<unsigned>(__floats2half2_rn(std::fma(a.x, b.x, c.x), std::fma(a.y, b.y, c.y)));
}
