// What tests/data/fake_cuda/device.cpp lacks of a backend: memory by strides, which here are those of rows.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

namespace {

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  return at::empty(size, at::TensorOptions().dtype(dtype).device(device));
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) { library.impl("empty_strided", empty_strided); }

}  // namespace
