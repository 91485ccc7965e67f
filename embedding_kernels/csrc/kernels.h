// Compiled kernels: what each computes, when it is chosen, and its code, loaded onto a GPU when first needed there.
//
// Python describes them by the structs below, field by field under the same names (_kernels.py); C, so that neither side
// depends on the other's compiler.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "driver.h"

extern "C" {

// Types of rows, indices and outputs.
enum EkType : int32_t { EK_FLOAT32, EK_FLOAT16, EK_BFLOAT16, EK_INT8, EK_INT4, EK_INT32, EK_INT64 };

// One template instance of a cubin.
struct EkKernel {
  const char* function;  // "lookup_stream", say
  const char* symbol;    // its mangled name in the cubin
  int32_t arch;          // 90 for sm_90; 0: PTX, for GPUs that no cubin is for
  EkType row_type;
  EkType index_type;
  EkType output_type;
  int32_t generic;       // of a function with the template argument of that name: its value; otherwise 0
  int32_t threads_x;
  int32_t threads_y;
};

// A function, and for which calls: the first route that fits a call is taken. Limits are at least the first and less than
// the second, where 0 is no limit.
struct EkRoute {
  const char* function;
  int32_t generic;         // which instances
  int32_t any;             // whether sample weights and the mode max are computed, and sizes of 64 bits
  int32_t alike;           // whether tables have to be alike (see tables_args.h)
  int32_t whole_vectors;   // whether rows and outputs have to be whole groups of 16 bytes
  int64_t rows_per_bag[2];
  int64_t bags_per_sm[2];
  int64_t blocks_per_sm;   // of a kernel whose blocks stay; 0: a block for each bag (x) and table (y)
  int64_t tables_at_once;  // of a launch, at most; 0: any
};

}  // extern "C"

namespace embedding_kernels {

struct Kernel {
  std::string function, symbol;
  EkKernel facts;
};
struct Route {
  std::string function;
  EkRoute facts;
};
struct Image {
  int arch;
  std::string code;
};
struct LoadedKernel {
  const Kernel* kernel;
  CUfunction function;
};
// The kernels that run on one GPU.
struct Loaded {
  int multiprocessors;
  std::vector<LoadedKernel> kernels;

  // Null where there is none.
  const LoadedKernel* find(const Route& route, EkType row_type, EkType index_type, EkType output_type) const;
};

// Kernels that belong together, such as those of one design. Never freed: a CUDA graph may hold them, and at the end of the
// process CUDA may be gone.
class KernelSet {
 public:
  explicit KernelSet(std::string its_name) : name(std::move(its_name)) {}

  // Before the set is used first.
  void add(Image image) { images_.push_back(std::move(image)); }
  void add(Kernel kernel) { kernels_.push_back(std::move(kernel)); }
  void add(Route route) { routes_.push_back(std::move(route)); }

  const std::deque<Route>& routes() const { return routes_; }
  // For the device, which is the current one. Loads them if need be, without a lock afterwards.
  const Loaded& on(int device) const;

  const std::string name;

 private:
  static constexpr int kMaxDevices = 64;

  const Loaded& load(int device) const;
  // The architecture among those compiled whose code runs on a GPU of this capability, 0 for PTX.
  int best_arch(int capability) const;

  std::deque<Image> images_;
  std::deque<Kernel> kernels_;
  std::deque<Route> routes_;
  mutable std::mutex loading_;
  mutable std::array<std::atomic<const Loaded*>, kMaxDevices> loaded_{};
};

// What serves lookups, and what ran.
struct State {
  std::atomic<const KernelSet*> used{nullptr};
  std::atomic<int64_t> calls{0};
  std::atomic<const Kernel*> last{nullptr};
};
State& state();

}  // namespace embedding_kernels
