// What kernels and their launches depend on of a GPU.
#pragma once

#include <cstdint>

#include "driver.h"
#include "tables_args.h"

namespace launching {

constexpr int kMaxDevices = 64;  // that are known, by their numbers

// 10 × major + minor, as in "sm_90".
inline int capability(const Driver& driver, int device) {
  constexpr int kMajor = 75, kMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
  return driver.attribute(device, kMajor) * 10 + driver.attribute(device, kMinor);
}

struct Gpu {
  int multiprocessors;
  int64_t crowded_clocks;  // see TablesArgs

  static Gpu of(const Driver& driver, int device) {
    constexpr int kClockRate = 13;            // CU_DEVICE_ATTRIBUTE_CLOCK_RATE
    constexpr int kMultiprocessorCount = 16;  // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    constexpr int kMemoryClockRate = 36;      // CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE
    constexpr int kMemoryBusWidth = 37;       // CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH
    const int multiprocessors = driver.attribute(device, kMultiprocessorCount);
    return {multiprocessors,
            ::crowded_clocks(multiprocessors, driver.attribute(device, kClockRate),
                             driver.attribute(device, kMemoryClockRate), driver.attribute(device, kMemoryBusWidth))};
  }
};

}  // namespace launching
