// EmbeddingBag for programs that would otherwise pass the dispatcher by, and with it a design in PyTorch's place: the
// C++ that torch.export and AOTInductor make calls PyTorch's own CUDA kernels by name. Python's side is exported.py.
#include <optional>
#include <tuple>

#include <ATen/core/Tensor.h>
#include <ATen/ops/_embedding_bag_forward_only.h>
#include <torch/library.h>

namespace embedding_harness {
namespace {

at::Tensor embedding_bag(const at::Tensor& weight, const at::Tensor& indices, const at::Tensor& offsets, int64_t mode,
                         const std::optional<at::Tensor>& sample_weights, bool include_last_offset,
                         int64_t padding_idx) {
  return std::get<0>(at::_embedding_bag_forward_only(weight, indices, offsets, false, mode, false, sample_weights,
                                                     include_last_offset, padding_idx));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(embedding_harness, library) {
  library.def(
      "embedding_bag(Tensor weight, Tensor indices, Tensor offsets, int mode, Tensor? sample_weights, "
      "bool include_last_offset, int padding_idx) -> Tensor");
}
TORCH_LIBRARY_IMPL(embedding_harness, CompositeExplicitAutograd, library) {
  library.impl("embedding_bag", &embedding_bag);
}

}  // namespace embedding_harness
