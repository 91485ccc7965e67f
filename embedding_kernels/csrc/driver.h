// The CUDA driver, as far as it is needed here.
#pragma once

#include "launching/driver.h"

namespace embedding_kernels {

using launching::CUdevice;
using launching::CUfunction;
using launching::CUmodule;
using launching::CUresult;
using launching::CUstream;
using launching::RelaxedCapture;

class Driver : public launching::Driver {
 public:
  CUresult (*function_load)(CUfunction);
  CUresult (*context_get_device)(CUdevice*);

  // Whether this thread's work goes to the device; it does not where the thread has no context yet.
  bool is_current(int device) const {
    CUdevice of_context = 0, handle = 0;
    return context_get_device(&of_context) == 0 && device_get(&handle, device) == 0 && of_context == handle;
  }

  // Raises where there is no driver; a later call tries again.
  static const Driver& get() {
    static const Driver driver;
    return driver;
  }

 private:
  Driver() {
    find("cuFuncLoad", function_load);
    find("cuCtxGetDevice", context_get_device);
    start();
  }
};

}  // namespace embedding_kernels
