// What the blocks of a launch share out work by: Tickets in device memory, zeros before and after every launch.
#pragma once

#include <array>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "driver.h"
#include "gpu.h"
#include "tables_args.h"

namespace launching {

// Launches on one stream follow each other, so they have the same tickets. A captured launch has tickets of its own for
// good: its graph may be replayed on any stream. (Two graphs made of one capture would share them, and their outputs.)
// Memory is the driver's and not PyTorch's, for what outlives a capture may not come from the graph's own pool.
class TicketBooth {
 public:
  // For a launch on `stream` of the device, which is the current one. The lock is the device's, and not held over a
  // launch.
  Tickets* of(const Driver& driver, int device, CUstream stream) {
    const bool capturing = driver.is_capturing(stream);
    Device& here = devices_.at(static_cast<std::size_t>(device));
    const std::lock_guard<std::mutex> lock(here.mutex);
    if (capturing) return fresh(driver, here);
    // A handle that means another stream in every thread.
    static thread_local char mine;
    const void* const key =
        reinterpret_cast<std::size_t>(stream) == kPerThreadStream ? static_cast<const void*>(&mine) : stream;
    Tickets*& known = here.of_streams[key];
    if (known == nullptr) known = fresh(driver, here);
    return known;
  }

 private:
  static constexpr std::size_t kPerThreadStream = 2;  // CU_STREAM_PER_THREAD
  static constexpr std::size_t kAtOnce = 512;

  struct Device {
    std::mutex mutex;
    std::unordered_map<const void*, Tickets*> of_streams;
    Tickets* next = nullptr;
    std::size_t left = 0;
  };

  // Tickets that nobody has had.
  static Tickets* fresh(const Driver& driver, Device& here) {
    if (here.left == 0) {
      const RelaxedCapture relaxed(driver);
      const std::vector<Tickets> zeros(kAtOnce, Tickets{});
      CUstream copies = nullptr;  // never captured
      CUdeviceptr address = 0;
      driver.check(driver.stream_create(&copies, kStreamNonBlocking), "cuStreamCreate");
      driver.check(driver.memory_allocate(&address, kAtOnce * sizeof(Tickets)), "cuMemAlloc");
      driver.check(driver.copy_to_device(address, zeros.data(), kAtOnce * sizeof(Tickets), copies),
                   "cuMemcpyHtoDAsync");
      driver.check(driver.stream_synchronize(copies), "cuStreamSynchronize");
      here.next = reinterpret_cast<Tickets*>(address);
      here.left = kAtOnce;
    }
    here.left--;
    return here.next++;
  }

  std::array<Device, kMaxDevices> devices_;
};

}  // namespace launching
