// Blocks of a launch, and how far the hardware and device code count.
#pragma once

#include <cstdint>
#include <limits>

namespace launching {

struct Grid {
  int64_t x;
  int64_t y = 1;
};

// The hardware's limits for a grid's x and y.
constexpr int64_t kMaxBlocks = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxRowsOfBlocks = 65535;

// What device code counts in 32 bits, lookups and bags among it: it counts on beyond the last by less.
constexpr int64_t kMostCounted = std::numeric_limits<int32_t>::max() - 1024;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace launching
