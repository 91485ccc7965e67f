// The part of the CUDA driver API that the patch needs, found in libcuda.so.1 when first used. So the operator builds
// without a CUDA toolkit, loads on a machine without a GPU, and does not start CUDA before a lookup does.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <mutex>
#include <string>

#include <c10/util/Exception.h>

namespace embedding_harness {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = struct CUctx_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUstream = struct CUstream_st*;

// Values of cuda.h, stable since the version named.
constexpr int kClockRate = 13;              // CU_DEVICE_ATTRIBUTE_CLOCK_RATE
constexpr int kMultiprocessorCount = 16;    // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
constexpr int kMemoryClockRate = 36;        // CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE
constexpr int kMemoryBusWidth = 37;         // CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH
constexpr int kCapabilityMajor = 75;        // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
constexpr int kCapabilityMinor = 76;        // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
constexpr int kCaptureModeRelaxed = 2;      // CU_STREAM_CAPTURE_MODE_RELAXED, 10.1
constexpr int kCaptureStatusNone = 0;       // CU_STREAM_CAPTURE_STATUS_NONE, 10.0
constexpr unsigned kStreamNonBlocking = 1;  // CU_STREAM_NON_BLOCKING
constexpr int kLimitPersistingL2Bytes = 6;  // CU_LIMIT_PERSISTING_L2_CACHE_SIZE, 11.0

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
  CUresult (*context_set_limit)(int limit, std::size_t value);
  CUresult (*context_get_limit)(std::size_t* value, int limit);
  CUresult (*context_reset_persisting_l2)();
  CUresult (*context_synchronize)();
  CUresult (*exchange_capture_mode)(int* mode);
  CUresult (*stream_is_capturing)(CUstream, int* status);
  CUresult (*stream_create)(CUstream*, unsigned flags);
  CUresult (*stream_synchronize)(CUstream);
  CUresult (*memory_allocate)(CUdeviceptr*, std::size_t bytes);
  CUresult (*memory_free)(CUdeviceptr);
  CUresult (*copy_to_device)(CUdeviceptr, const void* from, std::size_t bytes, CUstream);
  CUresult (*module_load_data)(CUmodule*, const void* image);
  CUresult (*module_get_function)(CUfunction*, CUmodule, const char* name);
  CUresult (*resident_blocks)(int* of_a_multiprocessor, CUfunction, int threads, std::size_t shared_bytes);
  CUresult (*launch_kernel)(CUfunction, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                            unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream, void** arguments,
                            void** extra);

  // Raises where there is no driver; a later call tries again.
  static const Driver& get() {
    static const Driver driver;
    return driver;
  }

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
    TORCH_CHECK(result == 0, "CUDA error: ", describe(result), " in ", call, ".");
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

 private:
  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    TORCH_CHECK(library != nullptr, "There is no NVIDIA driver here (libcuda.so.1: ", dlerror(), ").");
    find(library, "cuInit", init);
    find(library, "cuDriverGetVersion", driver_version);
    find(library, "cuGetErrorName", error_name);
    find(library, "cuGetErrorString", error_string);
    find(library, "cuDeviceGet", device_get);
    find(library, "cuDeviceGetAttribute", device_attribute);
    find(library, "cuDevicePrimaryCtxRetain", primary_context_retain);
    find(library, "cuCtxGetCurrent", context_get_current);
    find(library, "cuCtxSetCurrent", context_set_current);
    find(library, "cuCtxSetLimit", context_set_limit);
    find(library, "cuCtxGetLimit", context_get_limit);
    find(library, "cuCtxResetPersistingL2Cache", context_reset_persisting_l2);
    find(library, "cuCtxSynchronize", context_synchronize);
    find(library, "cuThreadExchangeStreamCaptureMode", exchange_capture_mode);
    find(library, "cuStreamIsCapturing", stream_is_capturing);
    find(library, "cuStreamCreate", stream_create);
    find(library, "cuStreamSynchronize", stream_synchronize);
    find(library, "cuMemAlloc_v2", memory_allocate);
    find(library, "cuMemFree_v2", memory_free);
    find(library, "cuMemcpyHtoDAsync_v2", copy_to_device);
    find(library, "cuModuleLoadData", module_load_data);
    find(library, "cuModuleGetFunction", module_get_function);
    find(library, "cuOccupancyMaxActiveBlocksPerMultiprocessor", resident_blocks);
    find(library, "cuLaunchKernel", launch_kernel);
    check(init(0), "cuInit");
  }

  template <typename Function>
  static void find(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    TORCH_CHECK(function != nullptr, "The NVIDIA driver is too old: it has no ", name, ". Update it.");
  }
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

}  // namespace embedding_harness
