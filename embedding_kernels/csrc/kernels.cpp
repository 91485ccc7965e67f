#include "kernels.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace embedding_kernels {

const LoadedKernel* Loaded::find(const Route& route, EkType row_type, EkType index_type, EkType output_type) const {
  for (const LoadedKernel& loaded : kernels) {
    const EkKernel& facts = loaded.kernel->facts;
    if (loaded.kernel->function == route.function && facts.generic == route.facts.generic && facts.row_type == row_type &&
        facts.index_type == index_type && facts.output_type == output_type) {
      return &loaded;
    }
  }
  return nullptr;
}

const Loaded& KernelSet::on(int device) const {
  STD_TORCH_CHECK(device < kMaxDevices, "GPU ", device, " is beyond the ", kMaxDevices, " that embedding_kernels knows.");
  const Loaded* known = loaded_[device].load(std::memory_order_acquire);
  return known != nullptr ? *known : load(device);
}

const Loaded& KernelSet::load(int device) const {
  const std::lock_guard<std::mutex> lock(loading_);
  if (const Loaded* known = loaded_[device].load(std::memory_order_acquire)) return *known;
  const Driver& driver = Driver::get();
  const RelaxedCapture relaxed(driver);
  const int capability = driver.attribute(device, kCapabilityMajor) * 10 + driver.attribute(device, kCapabilityMinor);
  const int arch = best_arch(capability);
  auto loaded = std::make_unique<Loaded>();
  loaded->multiprocessors = driver.attribute(device, kMultiprocessorCount);
  std::vector<CUmodule> modules;
  for (const Image& image : images_) {
    if (image.arch != arch) continue;
    CUmodule module = nullptr;
    const CUresult result = driver.module_load_data(&module, image.code.c_str());
    STD_TORCH_CHECK(result == 0, "The ", driver.version(), " refuses the kernels of ", name, " for ",
                    arch ? "sm_" + std::to_string(arch) : "PTX", ": ", driver.describe(result),
                    ". Update the driver, or compile them with an older toolchain.");
    modules.push_back(module);
  }
  for (const Kernel& kernel : kernels_) {
    if (kernel.facts.arch != arch) continue;
    CUfunction function = nullptr;
    for (CUmodule module : modules) {
      if (driver.module_get_function(&function, module, kernel.symbol.c_str()) == 0) break;
      function = nullptr;
    }
    STD_TORCH_CHECK(function != nullptr, "The kernels of ", name, " lack ", kernel.symbol, ". Compile them again.");
    loaded->kernels.push_back({&kernel, function});
  }
  const Loaded* result = loaded.release();
  loaded_[device].store(result, std::memory_order_release);
  return *result;
}

// A cubin runs on its own major version from its minor version on. 10 × major + minor, as in "sm_90".
int KernelSet::best_arch(int capability) const {
  int best = -1, oldest_ptx = -1;
  std::string compiled;
  for (const Image& image : images_) {
    const std::string arch = image.arch ? "sm_" + std::to_string(image.arch) : "PTX";
    if (compiled.find(arch) == std::string::npos) compiled += (compiled.empty() ? "" : ", ") + arch;
    if (image.arch == 0) oldest_ptx = 0;
    if (image.arch / 10 == capability / 10 && image.arch <= capability) best = std::max(best, image.arch);
  }
  if (best < 0) best = oldest_ptx;
  STD_TORCH_CHECK(best >= 0, "The kernels of ", name, " are compiled for ", compiled, ", none of which runs on this GPU (sm_",
                  capability, "). Compile them for sm_", capability, ".");
  return best;
}

State& state() {
  static State* const only = new State();
  return *only;
}

}  // namespace embedding_kernels

namespace {
thread_local std::string last_error;

// For Python: 0, or 1 where something was thrown, whose words `ek_error` then has.
template <typename Do>
int caught(const Do& what) {
  try {
    what();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}
}  // namespace

extern "C" {

const char* ek_error() { return last_error.c_str(); }

// Sizes of the structs, for Python to compare with its own.
int64_t ek_kernel_bytes() { return sizeof(EkKernel); }
int64_t ek_route_bytes() { return sizeof(EkRoute); }

// A new, empty set. It stays for the life of the process.
void* ek_new_set(const char* name) { return new embedding_kernels::KernelSet(name); }
void ek_add_image(void* set, int32_t arch, const char* code, int64_t bytes) {
  static_cast<embedding_kernels::KernelSet*>(set)->add(embedding_kernels::Image{arch, std::string(code, bytes)});
}
void ek_add_kernel(void* set, const EkKernel* kernel) {
  static_cast<embedding_kernels::KernelSet*>(set)->add(embedding_kernels::Kernel{kernel->function, kernel->symbol, *kernel});
}
void ek_add_route(void* set, const EkRoute* route) {
  static_cast<embedding_kernels::KernelSet*>(set)->add(embedding_kernels::Route{route->function, *route});
}

// Lookups use this set from now on; null: none.
void ek_use(const void* set) {
  embedding_kernels::state().used.store(static_cast<const embedding_kernels::KernelSet*>(set), std::memory_order_release);
}

// Loads a set's kernels onto a GPU now, instead of at the first lookup there.
int ek_load(const void* set, int32_t device) {
  return caught([&] {
    embedding_kernels::Driver::get().ensure_context(device);
    static_cast<const embedding_kernels::KernelSet*>(set)->on(device);
  });
}

// Launches since the beginning, and the last kernel's symbol, or "".
int64_t ek_calls() { return embedding_kernels::state().calls.load(std::memory_order_relaxed); }
const char* ek_last_kernel() {
  const embedding_kernels::Kernel* last = embedding_kernels::state().last.load(std::memory_order_relaxed);
  return last != nullptr ? last->symbol.c_str() : "";
}

}  // extern "C"
