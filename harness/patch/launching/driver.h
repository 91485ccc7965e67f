// What the two libraries that launch lookups share: the patch's, harness/patch, and that of embedding_kernels. Here is
// what both need of the CUDA driver API, found in libcuda.so.1 when first used. So they build without a CUDA toolkit,
// load on a machine without a GPU, and do not start CUDA before a lookup does.
//
// Nothing in this folder knows PyTorch: one library is built against its C++ interface, the other against its stable
// one alone.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <string>

#include "error.h"
#include "grid.h"

namespace launching {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = struct CUctx_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUstream = struct CUstream_st*;

// Values of cuda.h, stable since the version named.
constexpr int kCaptureModeRelaxed = 2;      // CU_STREAM_CAPTURE_MODE_RELAXED, 10.1
constexpr int kCaptureStatusNone = 0;       // CU_STREAM_CAPTURE_STATUS_NONE, 10.0
constexpr unsigned kStreamNonBlocking = 1;  // CU_STREAM_NON_BLOCKING

// What only one library needs, it adds in a class of its own, of which there is one instance.
class Driver {
 public:
  CUresult (*init)(unsigned int flags);
  CUresult (*driver_version)(int* version);
  CUresult (*error_name)(CUresult, const char**);
  CUresult (*error_string)(CUresult, const char**);
  CUresult (*device_get)(CUdevice*, int ordinal);
  CUresult (*device_attribute)(int* value, int attribute, CUdevice);
  CUresult (*primary_context_retain)(CUcontext*, CUdevice);
  CUresult (*context_get_current)(CUcontext*);
  CUresult (*context_set_current)(CUcontext);
  CUresult (*exchange_capture_mode)(int* mode);
  CUresult (*stream_is_capturing)(CUstream, int* status);
  CUresult (*stream_create)(CUstream*, unsigned flags);
  CUresult (*stream_synchronize)(CUstream);
  CUresult (*memory_allocate)(CUdeviceptr*, std::size_t bytes);
  CUresult (*copy_to_device)(CUdeviceptr, const void* from, std::size_t bytes, CUstream);
  CUresult (*module_load_data)(CUmodule*, const void* image);
  CUresult (*module_get_function)(CUfunction*, CUmodule, const char* name);
  CUresult (*launch_kernel)(CUfunction, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                            unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream, void** arguments,
                            void** extra);

  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  // "driver of CUDA 13.0".
  std::string version() const {
    int version = 0;
    driver_version(&version);
    return "driver of CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  }

  // What went wrong in the words of the driver, for example "an illegal memory access (CUDA_ERROR_...)".
  std::string describe(CUresult result) const {
    const char* name = nullptr;
    const char* text = nullptr;
    error_name(result, &name);
    error_string(result, &text);
    return std::string(text ? text : "unknown error") + " (" + (name ? name : std::to_string(result).c_str()) + ")";
  }

  void check(CUresult result, const char* call) const {
    if (result != 0) [[unlikely]]
      fail("CUDA error: ", describe(result), " in ", call, ".");
  }

  // A thread that has not yet worked with the GPU has no context; it gets PyTorch's, which is the device's primary
  // one. Another context of the same device (a green one, say) is the caller's choice and stays.
  void ensure_context(int device) const {
    CUcontext current = nullptr;
    check(context_get_current(&current), "cuCtxGetCurrent");
    if (current == nullptr) {
      CUdevice handle = 0;
      CUcontext primary = nullptr;
      check(device_get(&handle, device), "cuDeviceGet");
      // Never released: PyTorch's own hold on it lasts as long as the process, and so does ours.
      check(primary_context_retain(&primary, handle), "cuDevicePrimaryCtxRetain");
      check(context_set_current(primary), "cuCtxSetCurrent");
    }
  }

  // Whether a CUDA graph is being captured on the stream.
  bool is_capturing(CUstream stream) const {
    int status = kCaptureStatusNone;
    // An error: the legacy stream while another one is captured.
    return stream_is_capturing(stream, &status) != 0 || status != kCaptureStatusNone;
  }

  int attribute(int device, int attribute) const {
    CUdevice handle = 0;
    int value = 0;
    check(device_get(&handle, device), "cuDeviceGet");
    check(device_attribute(&value, attribute, handle), "cuDeviceGetAttribute");
    return value;
  }

  // `grid`: within the hardware's limits. `symbol`: the kernel's name, for an error.
  void launch(CUfunction function, const std::string& symbol, Grid grid, int64_t threads_x, int64_t threads_y,
              CUstream stream, void** arguments) const {
    const CUresult result = launch_kernel(function, static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), 1,
                                          static_cast<unsigned>(threads_x), static_cast<unsigned>(threads_y), 1, 0,
                                          stream, arguments, nullptr);
    if (result != 0) [[unlikely]]
      fail("CUDA error: ", describe(result), " when launching ", symbol, ".");
  }

 protected:
  // Finds what is above; raises where there is no driver. Who derives from this finds what it adds, and then starts.
  Driver() : library_(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) fail("There is no NVIDIA driver here (libcuda.so.1: ", dlerror(), ").");
    find("cuInit", init);
    find("cuDriverGetVersion", driver_version);
    find("cuGetErrorName", error_name);
    find("cuGetErrorString", error_string);
    find("cuDeviceGet", device_get);
    find("cuDeviceGetAttribute", device_attribute);
    find("cuDevicePrimaryCtxRetain", primary_context_retain);
    find("cuCtxGetCurrent", context_get_current);
    find("cuCtxSetCurrent", context_set_current);
    find("cuThreadExchangeStreamCaptureMode", exchange_capture_mode);
    find("cuStreamIsCapturing", stream_is_capturing);
    find("cuStreamCreate", stream_create);
    find("cuStreamSynchronize", stream_synchronize);
    find("cuMemAlloc_v2", memory_allocate);
    find("cuMemcpyHtoDAsync_v2", copy_to_device);
    find("cuModuleLoadData", module_load_data);
    find("cuModuleGetFunction", module_get_function);
    find("cuLaunchKernel", launch_kernel);
  }

  template <typename Function>
  void find(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(dlsym(library_, name));
    require(function != nullptr, "The NVIDIA driver is too old: it has no ", name, ". Update it.");
  }

  void start() const { check(init(0), "cuInit"); }

 private:
  void* const library_;
};

// Loading a module allocates, as other calls here do, which a thread may not do while a CUDA graph is captured
// anywhere, unless it says that it knows what it does. The first lookup of a program may well stand inside a capture.
class RelaxedCapture {
 public:
  explicit RelaxedCapture(const Driver& driver) : driver_(driver) {
    driver_.check(driver_.exchange_capture_mode(&mode_), "cuThreadExchangeStreamCaptureMode");
  }
  ~RelaxedCapture() { driver_.exchange_capture_mode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  const Driver& driver_;
  int mode_ = kCaptureModeRelaxed;
};

}  // namespace launching
