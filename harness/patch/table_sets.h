// Where tables lie, as a kernel reads it: an array of TableRows on the GPU for every set of tables looked up together.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "driver.h"
#include "tables_args.h"

namespace embedding_harness {

// Keeps one copy per device and content, so that looking the same tables up again copies nothing. The content is all:
// equal addresses, rows and strides are the same to a kernel, whichever tensors they belong to. Memory is the driver's
// and not PyTorch's, for what outlives a capture may not come from the graph's own pool.
class TableSets {
 public:
  // Calls `launch` with the set's address, which holds until then for what is launched on `stream`, and for as long as
  // a graph is replayed for what is captured. The device is the current one.
  template <typename Launch>
  void with(int device, const std::vector<TableRows>& tables, CUstream stream, const Launch& launch) {
    const Driver& driver = Driver::get();
    const bool capturing = driver.is_capturing(stream);
    const std::lock_guard<std::mutex> lock(mutex_);  // also over the launch: nobody frees the set before it
    Device& here = devices_[device];
    const std::string_view bytes(reinterpret_cast<const char*>(tables.data()), tables.size() * sizeof(TableRows));
    auto found = here.sets.find(bytes);
    if (found == here.sets.end()) {
      if (here.forgettable >= kMost && !capturing) forget(driver, here);
      found = add(driver, here, bytes);
    }
    Set& set = found->second;
    if (capturing && !set.captured) {
      set.captured = true;
      here.forgettable--;
    }
    launch(reinterpret_cast<const TableRows*>(set.address));
  }

 private:
  // A program has a few sets; this many means that it makes its tables anew for every lookup.
  static constexpr std::size_t kMost = 256;

  struct Set {
    CUdeviceptr address;
    bool captured = false;  // a graph may be replayed at any time, so these stay for good
  };
  struct Hash {
    using is_transparent = void;  // so that no string is made to look one up
    std::size_t operator()(std::string_view bytes) const { return std::hash<std::string_view>()(bytes); }
  };
  using Sets = std::unordered_map<std::string, Set, Hash, std::equal_to<>>;
  struct Device {
    Sets sets;
    std::size_t forgettable = 0;
    CUstream copies = nullptr;  // never captured
  };

  static Sets::iterator add(const Driver& driver, Device& here, std::string_view bytes) {
    const RelaxedCapture relaxed(driver);
    if (here.copies == nullptr) driver.check(driver.stream_create(&here.copies, kStreamNonBlocking), "cuStreamCreate");
    CUdeviceptr address = 0;
    driver.check(driver.memory_allocate(&address, bytes.size()), "cuMemAlloc");
    CUresult copied = driver.copy_to_device(address, bytes.data(), bytes.size(), here.copies);
    if (copied == 0) copied = driver.stream_synchronize(here.copies);
    if (copied != 0) driver.memory_free(address);
    driver.check(copied, "cuMemcpyHtoDAsync");
    here.forgettable++;
    return here.sets.emplace(std::string(bytes), Set{address}).first;
  }

  // Lets go of every set that no graph holds, once the GPU is done with them.
  static void forget(const Driver& driver, Device& here) {
    const RelaxedCapture relaxed(driver);
    if (driver.context_synchronize() != 0) return;  // another thread captures; a later call tries again
    for (auto entry = here.sets.begin(); entry != here.sets.end();) {
      if (entry->second.captured) {
        ++entry;
        continue;
      }
      driver.memory_free(entry->second.address);
      entry = here.sets.erase(entry);
    }
    here.forgettable = 0;
  }

  std::mutex mutex_;
  std::map<int, Device> devices_;
};

}  // namespace embedding_harness
