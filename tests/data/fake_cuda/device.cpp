// Lets a PyTorch built without CUDA hold tensors that say they are on CUDA, in the host's memory: as much of the
// backend as a lookup touches. The current device is switched, streams are numbered, nothing runs later than called.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

namespace {

thread_local c10::DeviceIndex current = 0;
thread_local c10::StreamId current_stream = 0;
int64_t streams_recorded = 0;

struct FakeGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before(c10::kCUDA, current);
    current = device.index();
    return before;
  }
  c10::Device getDevice() const override { return {c10::kCUDA, current}; }
  void setDevice(c10::Device device) const override { current = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current = device.index(); }
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, device, current_stream);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const c10::Stream before = getStream(stream.device());
    current_stream = stream.id();
    return before;
  }
  void* getStreamNativeHandle(const c10::Stream stream) const override {
    return reinterpret_cast<void*>(0x1000 * (stream.device_index() + 1) + stream.id());
  }
  c10::DeviceIndex deviceCount() const noexcept override { return 2; }
};

C10_REGISTER_GUARD_IMPL(CUDA, FakeGuard);

// The same memory, said to be on another device. The tensor given must outlive the one returned.
at::Tensor on(const at::Tensor& tensor, c10::Device device) {
  return at::for_blob(tensor.data_ptr(), tensor.sizes())
      .strides(tensor.strides())
      .options(tensor.options().device(device))
      .target_device(device)
      .make_tensor();
}

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat>) {
  // What a kernel forgets to write shows; the memory itself is never freed, which a short test can afford.
  auto* held = new at::Tensor(at::empty(size, at::TensorOptions().dtype(dtype).device(c10::kCPU)).fill_(77));
  return on(*held, *device);
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", empty);
  library.impl("record_stream", [](at::Tensor&, at::Stream) { streams_recorded++; });
}

TORCH_LIBRARY(fake_cuda, library) {
  library.def("on_gpu(Tensor tensor, int device) -> Tensor", [](const at::Tensor& tensor, int64_t device) {
    return on(tensor, {c10::kCUDA, static_cast<c10::DeviceIndex>(device)});
  });
  library.def("on_cpu(Tensor tensor) -> Tensor", [](const at::Tensor& tensor) { return on(tensor, c10::kCPU); });
  library.def("set_stream(int stream) -> ()", [](int64_t stream) { current_stream = stream; });
  library.def("current_device() -> int", []() -> int64_t { return current; });
  library.def("streams_recorded() -> int", [] { return streams_recorded; });
}

}  // namespace
