// A stand-in for CUDA on the host's C++ compiler, so that device code runs without a GPU: one thread at a time, the
// whole grid in turn. Enough of the language for lookups that exchange nothing between threads.
#pragma once
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static  // one thread at a time, so one block at a time

struct Index3 {
  unsigned int x = 1, y = 1, z = 1;
};
inline Index3 gridDim, blockDim, blockIdx, threadIdx;

typedef _Float16 __half;

// As on the device, a failed assertion never returns; here it goes to `emulate`.
extern "C" inline void __assertfail(const char* sentence, const char*, unsigned int, const char*, size_t) {
  throw std::logic_error(sentence);
}

inline std::vector<size_t> prefetched;  // every address that a prefetch was issued for, in order
inline size_t __cvta_generic_to_global(const void* address) { return reinterpret_cast<size_t>(address); }

// Runs `kernel(args)` for every thread of the grid; returns the sentence of the first failed assertion, or "".
template <typename Args>
const char* emulate(void (*kernel)(Args), const Args& args, unsigned int blocks, unsigned int x, unsigned int y) {
  static std::string failure;
  gridDim = {blocks, 1, 1};
  blockDim = {x, y, 1};
  try {
    for (blockIdx = {0, 0, 0}; blockIdx.x < blocks; blockIdx.x++) {
      for (threadIdx = {0, 0, 0}; threadIdx.y < y; threadIdx.y++) {
        for (threadIdx.x = 0; threadIdx.x < x; threadIdx.x++) {
          kernel(args);
        }
      }
    }
    failure.clear();
  } catch (const std::logic_error& error) {
    failure = error.what();
  }
  return failure.c_str();
}
