// The compiled kernels: what each computes, when it is chosen, and its code, loaded onto a GPU when first needed there.
//
// They lie in the folder `kernels` beside this library, each design's in one of its own: `kernels.txt`, which says what
// there is (see parse()), and for each type of rows a fat binary, of which the driver takes the machine code of its
// GPU, or PTX where there is none.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "driver.h"
#include "launching/gpu.h"

namespace embedding_kernels {

// Types of rows, outputs and indices. Python has the same numbers (_layout.py).
enum Type : int64_t { kFloat32, kFloat16, kBFloat16, kInt8, kInt4, kInt32, kInt64, kTypes };
constexpr int64_t kRowTypes = kInt4 + 1;
// Designs, between which who looks up may choose; their folders' names are in kernels.cpp.
enum Design : int64_t { kFused, kVectorized, kDesigns };

// A kernel of one template instance.
struct Kernel {
  std::size_t function;  // among Kernels' functions
  Type row_type, output_type, index_type;
  bool generic;  // of lookup_tables: whether it takes every call
  unsigned threads_y;
  std::string symbol;  // its mangled name
};

struct LoadedKernel {
  const Kernel* kernel;
  CUfunction function;
};

// The kernels for one type of rows on one GPU.
struct Loaded {
  launching::Gpu gpu;
  std::vector<LoadedKernel> kernels;

  // Null where there is none.
  const LoadedKernel* find(std::size_t function, Type output_type, Type index_type, bool generic) const;
};

// A function, how it is launched, and of special ones for which calls: limits are at least the first and less than the
// second, where 0 is no limit.
struct Route {
  std::size_t function;
  unsigned threads_x;
  int64_t bags_per_block;
  int64_t blocks_per_sm;   // of a kernel whose blocks stay; 0: blocks for the bags (x) of each table (y)
  int64_t tables_at_once;  // of a launch, at most; 0: any
  // Whether tables have to be alike (see tables_args.h), 1, may not, 0, or may be either, -1. Of the function for any
  // call it says so of the instance that is not `generic`: alike, or with rows and outputs of whole vectors.
  int64_t alike;
  int64_t rows_per_bag[2];
  int64_t bags_per_sm[2];
  int64_t columns[2];  // of the widest table
};

// Those of one design.
class Kernels {
 public:
  // What is in the design's folder beside this library; an error where there is none.
  static const Kernels& of(int64_t design);

  // Those for a type of rows, on the device, which is the current one. Loaded once, kept for the life of the process:
  // a CUDA graph may hold them. Without a lock afterwards.
  const Loaded& on(int device, Type row_type) const;
  // Why a GPU cannot run them, in a sentence; empty where it can.
  std::string refusal(int device) const;

  const std::vector<Route>& special() const { return special_; }
  const Route& any() const { return any_; }

 private:
  explicit Kernels(std::string folder);
  void parse(std::istream& file);
  std::size_t function(const std::string& name);
  const Loaded& load(int device, Type row_type) const;

  const std::string folder_;
  int needed_driver_ = 0;         // as cuDriverGetVersion says it, 13000 for CUDA 13.0
  std::vector<int> archs_, ptx_;  // 90 for sm_90
  std::vector<std::string> functions_;
  std::vector<Route> special_;
  Route any_{};
  std::vector<Kernel> kernels_;
  mutable std::mutex loading_;
  mutable std::array<std::array<std::atomic<const Loaded*>, kRowTypes>, launching::kMaxDevices> loaded_{};
};

// The last kernel that was launched, or null.
std::atomic<const Kernel*>& last_kernel();

}  // namespace embedding_kernels
