// The CUDA driver, as far as the patch needs it.
#pragma once

#include "launching/driver.h"

namespace embedding_harness {

using launching::CUdeviceptr;
using launching::CUfunction;
using launching::CUmodule;
using launching::CUresult;
using launching::CUstream;
using launching::kStreamNonBlocking;
using launching::RelaxedCapture;

constexpr int kLimitPersistingL2Bytes = 6;  // CU_LIMIT_PERSISTING_L2_CACHE_SIZE, 11.0

class Driver : public launching::Driver {
 public:
  CUresult (*context_set_limit)(int limit, std::size_t value);
  CUresult (*context_get_limit)(std::size_t* value, int limit);
  CUresult (*context_reset_persisting_l2)();
  CUresult (*context_synchronize)();
  CUresult (*memory_free)(CUdeviceptr);
  CUresult (*resident_blocks)(int* of_a_multiprocessor, CUfunction, int threads, std::size_t shared_bytes);

  // Raises where there is no driver; a later call tries again.
  static const Driver& get() {
    static const Driver driver;
    return driver;
  }

 private:
  Driver() {
    find("cuCtxSetLimit", context_set_limit);
    find("cuCtxGetLimit", context_get_limit);
    find("cuCtxResetPersistingL2Cache", context_reset_persisting_l2);
    find("cuCtxSynchronize", context_synchronize);
    find("cuMemFree_v2", memory_free);
    find("cuOccupancyMaxActiveBlocksPerMultiprocessor", resident_blocks);
    start();
  }
};

}  // namespace embedding_harness
