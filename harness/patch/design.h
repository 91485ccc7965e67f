// A compiled design: what it supports, and its kernels, loaded onto a device when first needed there.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include "driver.h"
#include "launching/gpu.h"
#include "launching/grid.h"
#include "plan.h"

namespace embedding_harness {

// Rows of four bits have no type of their own in PyTorch's tables; this one stands for them. Rows of eight are kByte.
constexpr at::ScalarType kFourBits = at::ScalarType::QUInt4x2;

// What tells the kernels of one design and architecture apart.
struct Instance {
  std::string function;  // lookup, prepare, lookup_tables or a special kernel's
  at::ScalarType dtype;
  at::ScalarType index_dtype;   // not of prepare
  at::ScalarType output_dtype;  // of kernels for all tables
  bool generic;                 // otherwise for fast calls alone

  bool operator==(const Instance&) const = default;
};

// Of a lookup's parameters, their places in LOOKUP_FIELDS; empty: that very order.
struct LookupOrder {
  std::vector<std::size_t> places;
};

// One template instance of one cubin, as the manifest lists it.
struct Kernel {
  Instance instance;
  int64_t arch;  // 90 for sm_90
  std::string cubin;
  std::string symbol;
  int64_t threads_y;
  LookupOrder order;
};

struct LoadedKernel {
  const Kernel* kernel;
  CUfunction function;
  int resident_blocks;  // of a multiprocessor
};

// The kernels of one design that run on one device.
struct LoadedDesign {
  launching::Gpu gpu;
  std::vector<LoadedKernel> kernels;

  // The generic instance where there is none for fast calls; null where there is neither.
  const LoadedKernel* find(const Instance& wanted) const {
    const LoadedKernel* generic = nullptr;
    for (const auto& loaded : kernels) {
      Instance found = loaded.kernel->instance;
      if (found == wanted) return &loaded;
      if (!std::exchange(found.generic, wanted.generic)) continue;
      if (found == wanted) generic = &loaded;
    }
    return generic;
  }
};

// A kernel for fast calls of some shapes: at least the first of each two numbers and less than the second, where 0 is
// no limit.
struct Special {
  std::string function;
  LaunchShape shape;
  std::optional<bool> alike;  // whether the tables must be alike (see tables_args.h); none: they may be either
  std::array<int64_t, 2> rows_per_bag;
  std::array<int64_t, 2> bags_per_multiprocessor;
  std::array<int64_t, 2> columns;  // of the widest table
  int64_t tables_at_once;          // of a launch, at most; 0: any
};

// What a manifest says of the design as a whole.
struct Description {
  std::string name;
  Supports supports;
  LaunchShape shape;
  bool prepares;
  bool output_only;  // whether a lookup writes nothing else where no gradient is wanted
};

struct Design : Description {
  std::vector<Special> specials;
  std::vector<Kernel> kernels;

  // The kernels for the device, which is the current one. Loaded once and kept for the life of the process: a CUDA
  // graph captured with them may be replayed long after another design was applied.
  const LoadedDesign& on(int device) const {
    using launching::kMaxDevices;
    TORCH_CHECK(device < kMaxDevices, "GPU ", device, " is beyond the ", kMaxDevices, " that the patch knows.");
    const LoadedDesign* known = loaded_[device].load(std::memory_order_acquire);
    return known != nullptr ? *known : load(device);
  }

 private:
  const LoadedDesign& load(int device) const {
    const std::lock_guard<std::mutex> lock(loading_);
    if (const LoadedDesign* known = loaded_[device].load(std::memory_order_acquire)) return *known;
    const Driver& driver = Driver::get();
    const RelaxedCapture relaxed(driver);
    const int64_t arch = best_arch(launching::capability(driver, device));

    auto loaded = std::make_unique<LoadedDesign>();
    loaded->gpu = launching::Gpu::of(driver, device);
    std::map<std::string, CUmodule> modules;
    for (const Kernel& kernel : kernels) {
      if (kernel.arch != arch) continue;
      CUmodule& module = modules[kernel.cubin];
      if (module == nullptr) module = load_module(driver, kernel);
      CUfunction function = nullptr;
      const CUresult result = driver.module_get_function(&function, module, kernel.symbol.c_str());
      TORCH_CHECK(result == 0, kernel.cubin, ": has no kernel ", kernel.symbol, " (", driver.describe(result),
                  "). Compile design ", name, " again.");
      int resident = 0;
      driver.check(driver.resident_blocks(&resident, function, static_cast<int>(threads_of(kernel)), 0),
                   "cuOccupancyMaxActiveBlocksPerMultiprocessor");
      loaded->kernels.push_back({&kernel, function, resident});
    }
    const LoadedDesign* result = loaded.release();
    loaded_[device].store(result, std::memory_order_release);
    return *result;
  }

  int64_t threads_of(const Kernel& kernel) const {
    for (const Special& special : specials) {
      if (special.function == kernel.instance.function) return special.shape.threads_x * kernel.threads_y;
    }
    return shape.threads_x * kernel.threads_y;
  }

  // A cubin runs on its own major version from its minor version on. 10 × major + minor, as in "sm_90".
  int64_t best_arch(int64_t capability) const {
    int64_t best = -1;
    std::string compiled;
    for (const Kernel& kernel : kernels) {
      const std::string arch = "sm_" + std::to_string(kernel.arch);
      if (compiled.find(arch) == std::string::npos) compiled += (compiled.empty() ? "" : ", ") + arch;
      if (kernel.arch / 10 == capability / 10 && kernel.arch <= capability) best = std::max(best, kernel.arch);
    }
    TORCH_CHECK(best >= 0, "Design ", name, " is compiled for ", compiled, ", none of which runs on this GPU (sm_",
                capability, "). Compile it for sm_", capability, ".");
    return best;
  }

  CUmodule load_module(const Driver& driver, const Kernel& kernel) const {
    std::ifstream file(kernel.cubin, std::ios::binary);
    const std::string image((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    TORCH_CHECK(!image.empty(), kernel.cubin, ": cannot be read. Compile design ", name, " again.");
    CUmodule module = nullptr;
    const CUresult result = driver.module_load_data(&module, image.data());
    TORCH_CHECK(result == 0, "The ", driver.version(), " refuses design ", name, " as compiled for sm_", kernel.arch,
                ": ", driver.describe(result), ". Update the driver, or compile the design with an older toolchain.");
    return module;
  }

  mutable std::mutex loading_;
  mutable std::array<std::atomic<const LoadedDesign*>, launching::kMaxDevices> loaded_{};
};

// The addresses of a kernel's parameters, as the driver wants them: field by field for `lookup`, otherwise one struct.
template <typename Struct>
std::array<void*, 1> parameters(Struct& args) {
  return {&args};
}
inline auto parameters(LookupArgs& args) {
#define LOOKUP_ADDRESS(type, name) &args.name,
  return std::to_array<void*>({LOOKUP_FIELDS(LOOKUP_ADDRESS)});
#undef LOOKUP_ADDRESS
}

// Others' kernels take a lookup's fields in an order of their own, and perhaps not all of them.
template <std::size_t count>
void put_in_order(std::array<void*, count>& addresses, const LookupOrder& order) {
  const auto given = addresses;
  for (std::size_t i = 0; i < order.places.size(); i++) addresses.at(i) = given.at(order.places[i]);
}

// PyTorch's current stream of the device.
inline CUstream current_stream(c10::Device device) {
  const c10::impl::VirtualGuardImpl devices(c10::DeviceType::CUDA);
  return static_cast<CUstream>(devices.getStream(device).native_handle());
}

using launching::Grid;
using launching::kMaxRowsOfBlocks;

// Launches on PyTorch's current stream of the device, which is the current one.
template <typename Arguments>
void launch(const LoadedKernel& loaded, c10::Device device, Grid grid, int64_t threads_x, Arguments& arguments) {
  TORCH_INTERNAL_ASSERT(grid.x > 0 && grid.x <= kMaxBlocks && grid.y > 0 && grid.y <= kMaxRowsOfBlocks);
  auto addresses = parameters(arguments);
  put_in_order(addresses, loaded.kernel->order);
  const Kernel& kernel = *loaded.kernel;
  Driver::get().launch(loaded.function, kernel.symbol, grid, threads_x, kernel.threads_y, current_stream(device),
                       addresses.data());
}

}  // namespace embedding_harness
