// Functions of PyTorch's that ask for a CUDA backend with all that it has; found before its own.
#include <atomic>

namespace {
std::atomic<int> fake_guards{0};
}

extern "C" {

int cuCtxGetDevice(int* device);
int cuCtxSetCurrent(void* context);
int cuDevicePrimaryCtxRetain(void** primary, int device);

int aoti_torch_get_current_cuda_stream(int device, void** stream) {
  return *stream = reinterpret_cast<void*>(0x1000L * (device + 1)), 0;
}

// The current device is that of the thread's context, or the first one. A guard is the number of the one before.
int aoti_torch_create_device_guard(int device, void** guard) {
  int before = 0;
  cuCtxGetDevice(&before);
  void* context = nullptr;
  if (device != before) cuDevicePrimaryCtxRetain(&context, device), cuCtxSetCurrent(context);
  fake_guards++;
  return *guard = new int(before), 0;
}
int aoti_torch_delete_device_guard(void* guard) {
  const int before = *static_cast<int*>(guard);
  delete static_cast<int*>(guard);
  int now = 0;
  cuCtxGetDevice(&now);
  void* context = nullptr;
  if (now != before) cuDevicePrimaryCtxRetain(&context, before), cuCtxSetCurrent(context);
  return 0;
}

// How many guards there have been.
int fake_device_guards() { return fake_guards; }
}
