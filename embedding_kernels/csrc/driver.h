// The CUDA driver, as far as it is needed here.
#pragma once

#include "launching/driver.h"

namespace embedding_kernels {

using launching::CUfunction;
using launching::CUmodule;
using launching::CUresult;
using launching::CUstream;
using launching::RelaxedCapture;

class Driver : public launching::Driver {
 public:
  CUresult (*function_load)(CUfunction);

  // Raises where there is no driver; a later call tries again.
  static const Driver& get() {
    static const Driver driver;
    return driver;
  }

 private:
  Driver() {
    find("cuFuncLoad", function_load);
    start();
  }
};

}  // namespace embedding_kernels
