#include "kernels.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "error.h"

namespace embedding_kernels {
namespace {

constexpr const char* kNames[kTypes] = {"float32", "float16", "bfloat16", "int8", "int4", "int32", "int64"};
constexpr const char* kDesignNames[kDesigns] = {"fused", "vectorized"};

Type type_of(const std::string& name) {
  for (int64_t type = 0; type < kTypes; type++) {
    if (name == kNames[type]) return static_cast<Type>(type);
  }
  fail("embedding_kernels: kernels.txt names an unknown type, ", name, "; install the package anew.");
}

// The folder beside the library that this code is in.
std::string folder() {
  Dl_info info{};
  require(dladdr(reinterpret_cast<void*>(&folder), &info) != 0 && info.dli_fname != nullptr,
          "embedding_kernels: its own library is not found on disk.");
  const std::string library = info.dli_fname;
  const std::size_t slash = library.rfind('/');
  return (slash == std::string::npos ? "." : library.substr(0, slash)) + "/kernels";
}

std::string whole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  require(!bytes.empty(), path, ": cannot be read; install embedding-kernels anew.");
  return bytes;
}

std::string number_of(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

const LoadedKernel* Loaded::find(std::size_t function, Type output_type, Type index_type, bool generic) const {
  for (const LoadedKernel& loaded : kernels) {
    const Kernel& kernel = *loaded.kernel;
    if (kernel.function == function && kernel.output_type == output_type && kernel.index_type == index_type &&
        kernel.generic == generic) {
      return &loaded;
    }
  }
  return nullptr;
}

const Kernels& Kernels::of(int64_t design) {
  // Never freed: at the end of the process CUDA may be gone.
  if (design == kVectorized) {
    static const Kernels* const vectorized = new Kernels(folder() + "/" + kDesignNames[kVectorized]);
    return *vectorized;
  }
  static const Kernels* const fused = new Kernels(folder() + "/" + kDesignNames[kFused]);
  return *fused;
}

Kernels::Kernels(std::string folder) : folder_(std::move(folder)) {
  std::ifstream file(folder_ + "/kernels.txt");
  require(file.good(), "embedding_kernels: ", folder_, " holds no kernels for GPUs; install the wheel.");
  parse(file);
}

std::size_t Kernels::function(const std::string& name) {
  const auto found = std::find(functions_.begin(), functions_.end(), name);
  if (found != functions_.end()) return static_cast<std::size_t>(found - functions_.begin());
  functions_.push_back(name);
  return functions_.size() - 1;
}

// One thing to a line, words between spaces:
//   driver VERSION
//   arch NUMBER
//   ptx NUMBER
//   any|special FUNCTION threads_x bags_per_block blocks_per_sm tables_at_once alike rows (2) bags (2) columns (2)
//   kernel FUNCTION row_type output_type index_type generic threads_y SYMBOL
void Kernels::parse(std::istream& file) {
  std::string what, name, row_type, output_type, index_type;
  while (file >> what) {
    int arch = 0;
    if (what == "driver") {
      file >> needed_driver_;
    } else if (what == "arch" || what == "ptx") {
      file >> arch;
      (what == "ptx" ? ptx_ : archs_).push_back(arch);
    } else if (what == "any" || what == "special") {
      Route route{};
      file >> name >> route.threads_x >> route.bags_per_block >> route.blocks_per_sm >> route.tables_at_once >>
          route.alike >> route.rows_per_bag[0] >> route.rows_per_bag[1] >> route.bags_per_sm[0] >>
          route.bags_per_sm[1] >> route.columns[0] >> route.columns[1];
      route.function = function(name);
      if (what == "any") any_ = route;
      if (what == "special") special_.push_back(route);
    } else if (what == "kernel") {
      Kernel kernel{};
      file >> name >> row_type >> output_type >> index_type >> kernel.generic >> kernel.threads_y >> kernel.symbol;
      kernel.function = function(name);
      kernel.row_type = type_of(row_type), kernel.output_type = type_of(output_type);
      kernel.index_type = type_of(index_type);
      kernels_.push_back(kernel);
    } else {
      fail(folder_, "/kernels.txt: ", what, " is unknown; install embedding-kernels anew.");
    }
    require(!file.fail(), folder_, "/kernels.txt: cannot be read; install embedding-kernels anew.");
  }
}

std::string Kernels::refusal(int device) const {
  const Driver& driver = Driver::get();
  int version = 0;
  driver.driver_version(&version);
  if (version < needed_driver_) {
    return "The NVIDIA driver is one of CUDA " + number_of(version) + ", and embedding_kernels needs one of CUDA " +
           number_of(needed_driver_) + " or later; update it.";
  }
  const int capability = launching::capability(driver, device);
  std::string known;
  for (int arch : archs_) {
    if (arch / 10 == capability / 10 && arch <= capability) return "";  // a cubin, from its own minor version on
    known += (known.empty() ? "sm_" : ", sm_") + std::to_string(arch);
  }
  for (int arch : ptx_) {
    if (arch <= capability) return "";
  }
  return "GPU " + std::to_string(device) + " is an sm_" + std::to_string(capability) +
         ", and embedding_kernels is compiled for " + known + ".";
}

const Loaded& Kernels::on(int device, Type row_type) const {
  using launching::kMaxDevices;
  require(device < kMaxDevices, "embedding_kernels: GPU ", device, " is beyond the ", kMaxDevices, " that it knows.");
  const Loaded* known = loaded_[device][row_type].load(std::memory_order_acquire);
  return known != nullptr ? *known : load(device, row_type);
}

const Loaded& Kernels::load(int device, Type row_type) const {
  const std::lock_guard<std::mutex> lock(loading_);
  std::atomic<const Loaded*>& place = loaded_[device][row_type];
  if (const Loaded* known = place.load(std::memory_order_acquire)) return *known;
  const std::string why = refusal(device);
  require(why.empty(), why);
  const Driver& driver = Driver::get();
  const RelaxedCapture relaxed(driver);
  const std::string path = folder_ + "/" + kNames[row_type] + ".fatbin", code = whole(path);
  CUmodule module = nullptr;
  const CUresult result = driver.module_load_data(&module, code.data());
  require(result == 0, "The ", driver.version(), " refuses ", path, ": ", driver.describe(result),
          "; update the driver.");
  auto loaded = std::make_unique<Loaded>();
  loaded->gpu = launching::Gpu::of(driver, device);
  for (const Kernel& kernel : kernels_) {
    if (kernel.row_type != row_type) continue;
    CUfunction function = nullptr;
    const CUresult found = driver.module_get_function(&function, module, kernel.symbol.c_str());
    require(found == 0, path, ": has no kernel ", kernel.symbol, " (", driver.describe(found),
            "); install embedding-kernels anew.");
    // Otherwise the driver would do it at the first launch, perhaps within a capture.
    driver.check(driver.function_load(function), "cuFuncLoad");
    loaded->kernels.push_back({&kernel, function});
  }
  const Loaded* kept = loaded.release();
  place.store(kept, std::memory_order_release);
  return *kept;
}

std::atomic<const Kernel*>& last_kernel() {
  static std::atomic<const Kernel*> last{nullptr};
  return last;
}

}  // namespace embedding_kernels
