// The operators, in PyTorch's stable ABI: one build serves every PyTorch from 2.10 on, and every Python.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "driver.h"
#include "error.h"
#include "launching/gpu.h"
#include "launching/grid.h"
#include "lookup.h"

namespace embedding_kernels {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// An output [rows, columns] beside `like`. Not through the dispatcher, which looks its operators up by name.
Tensor empty(int64_t rows, int64_t columns, Type type, const Tensor& like) {
  const int32_t dtype = type == kFloat32   ? aoti_torch_dtype_float32()
                        : type == kFloat16 ? aoti_torch_dtype_float16()
                                           : aoti_torch_dtype_bfloat16();
  const int64_t sizes[] = {rows, columns}, strides[] = {columns, 1};
  int32_t device_type = 0, device_index = 0;
  AtenTensorHandle made = nullptr;
  require(aoti_torch_get_device_type(like.get(), &device_type) == 0 &&
              aoti_torch_get_device_index(like.get(), &device_index) == 0 &&
              aoti_torch_empty_strided(2, sizes, strides, dtype, device_type, device_index, &made) == 0,
          "embedding_kernels: PyTorch has no memory for an output of ", rows, " x ", columns, ".");
  return Tensor(made);
}

// PyTorch's current stream. Its CUDA part is not there in builds for the CPU, so it is asked for by name.
CUstream current_stream(int device) {
  using Get = AOTITorchError (*)(int32_t, void**);
  static const auto get = [] {
    void* const cuda = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    void* const found = dlsym(cuda != nullptr ? cuda : RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream");
    return reinterpret_cast<Get>(found);
  }();
  require(get != nullptr, "embedding_kernels: this PyTorch is built without CUDA.");
  void* stream = nullptr;
  require(get(device, &stream) == 0, "embedding_kernels: PyTorch tells no current stream of GPU ", device, ".");
  return static_cast<CUstream>(stream);
}

std::vector<Group> groups_of(const std::vector<int64_t>& numbers, int64_t n_tables) {
  require(!numbers.empty() && numbers.size() % kGroupNumbers == 0, "embedding_kernels: groups are of ", kGroupNumbers,
          " numbers each; a model that another version exported or pickled has to be made anew by this one.");
  std::vector<Group> groups(numbers.size() / kGroupNumbers);
  std::memcpy(groups.data(), numbers.data(), numbers.size() * sizeof(int64_t));
  int64_t next = 0;
  for (const Group& group : groups) {
    require(group.first == next && group.count > 0 && group.row_type >= 0 && group.row_type < kRowTypes &&
                group.design >= 0 && group.design < kDesigns,
            "embedding_kernels: groups of tables follow each other and are of known types and designs.");
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    require(group.few_rows >= Group::kUsual && group.few_rows <= most && group.many_bags >= Group::kUsual &&
                group.many_bags <= most,
            "embedding_kernels: limits of rows and bags are counts below 2^31.");
    require(group.crowded_clocks >= Group::kUsual && group.crowded_clocks < Group::kMostCrowdedClocks,
            "embedding_kernels: crowded clocks are a count below 2^24.");
    next += group.count;
  }
  require(next == n_tables, "embedding_kernels: groups cover all tables.");
  return groups;
}

// The arguments, checked as far as the host can without waiting for a GPU, and what holds them meanwhile.
struct Checked {
  Call call{};
  Tensor indices, offsets, output;
  std::optional<Tensor> sample_weights;
};

Tensor as(const Tensor& tensor, ScalarType type) {
  const Tensor typed = tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
  return typed.is_contiguous() ? typed : torch::stable::contiguous(typed);
}

Checked checked(const Tensor& storage, const Tensor& tables, const Tensor& indices, const Tensor& offsets,
                const std::optional<Tensor>& sample_weights, const std::optional<Tensor>& faults, int64_t features,
                int64_t columns, const std::vector<int64_t>& groups, int64_t output_type) {
  Checked checked;
  Call& call = checked.call;
  TablesArgs& args = call.args;
  require(tables.scalar_type() == ScalarType::Long && tables.dim() == 2 && tables.is_contiguous() &&
              tables.size(1) * static_cast<int64_t>(sizeof(int64_t)) == static_cast<int64_t>(sizeof(TableRows)),
          "embedding_kernels: tables are described by int64 [tables, ", sizeof(TableRows) / sizeof(int64_t), "].");
  require(indices.defined() && offsets.defined(), "embedding_kernels: indices and offsets are tensors, not None.");
  require(indices.dim() == 1 && offsets.dim() == 1, "embedding_kernels: indices and offsets have one dimension.");
  for (const Tensor* const each : {&storage, &indices, &offsets}) {
    require(each->device() == tables.device(),
            "embedding_kernels: indices and offsets are not on the device of their tables; move them there.");
  }
  for (const Tensor* const each : {&indices, &offsets}) {
    require(each->scalar_type() == ScalarType::Int || each->scalar_type() == ScalarType::Long,
            "embedding_kernels: indices and offsets are int32 or int64, not ",
            torch::headeronly::toString(each->scalar_type()), ".");
  }
  // Where they differ both become int64, as in PyTorch.
  const ScalarType common = indices.scalar_type() == offsets.scalar_type() ? indices.scalar_type() : ScalarType::Long;
  checked.indices = as(indices, common), checked.offsets = as(offsets, common);
  call.index_type = common == ScalarType::Int ? kInt32 : kInt64, call.output_type = static_cast<Type>(output_type);
  require(output_type >= kFloat32 && output_type <= kBFloat16,
          "embedding_kernels: outputs are float32, float16 or bfloat16.");
  require(features > 0 && offsets.numel() > 0 && (offsets.numel() - 1) % features == 0,
          "embedding_kernels: ", offsets.numel(), " offsets are not features * bags + 1 for ", features, " features.");
  call.n_features = features;
  call.groups = groups_of(groups, tables.size(0));
  args.n_indices = indices.numel();
  args.n_bags = (offsets.numel() - 1) / features;
  args.n_tables = tables.size(0);
  using launching::kMostCounted;
  require(args.n_indices <= kMostCounted && args.n_bags <= kMostCounted,
          "embedding_kernels: 2^31 - 1024 lookups or bags and more in one call are too many; split the batch.");
  if (sample_weights.has_value()) {
    require(sample_weights->dim() == 1 && sample_weights->numel() == args.n_indices &&
                sample_weights->device() == tables.device(),
            "embedding_kernels: there is one per-sample weight beside each index, on its device.");
    const ScalarType type = sample_weights->scalar_type();
    require(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16 ||
                type == ScalarType::Double,
            "embedding_kernels: per-sample weights are float32, float16, bfloat16 or float64, not ",
            torch::headeronly::toString(type), ".");
    checked.sample_weights = as(*sample_weights, ScalarType::Float);
    args.sample_weights = static_cast<const float*>(checked.sample_weights->data_ptr());
  }
  if (faults.has_value()) {
    require(faults->numel() * static_cast<int64_t>(sizeof(int64_t)) == static_cast<int64_t>(sizeof(LookupFaults)) &&
                faults->scalar_type() == ScalarType::Long && faults->device() == tables.device(),
            "embedding_kernels: faults are counted in int64 [", sizeof(LookupFaults) / sizeof(int64_t), "].");
    args.faults = static_cast<LookupFaults*>(faults->data_ptr());
  }
  checked.output = empty(args.n_bags, columns, call.output_type, tables);
  args.storage = storage.data_ptr();
  args.tables = static_cast<const TableRows*>(tables.data_ptr());
  args.indices = checked.indices.data_ptr();
  args.offsets = checked.offsets.data_ptr();
  args.output = checked.output.data_ptr();
  args.output_stride = columns;
  args.rows_per_bag =
      static_cast<float>(args.n_indices) / static_cast<float>(std::max<int64_t>(args.n_bags * features, 1));
  call.output_bits = reinterpret_cast<int64_t>(args.output) | columns * bytes_of(call.output_type);
  return checked;
}

Tensor lookup_cuda(Tensor storage, Tensor tables, Tensor indices, Tensor offsets, std::optional<Tensor> sample_weights,
                   std::optional<Tensor> faults, int64_t features, int64_t columns, std::vector<int64_t> groups,
                   int64_t output_type) {
  const int device = tables.get_device();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const Checked ready =
      checked(storage, tables, indices, offsets, sample_weights, faults, features, columns, groups, output_type);
  if (ready.call.args.n_bags > 0) look_up_on_gpu(ready.call, device, current_stream(device));
  return ready.output;
}

Tensor lookup_cpu(Tensor storage, Tensor tables, Tensor indices, Tensor offsets, std::optional<Tensor> sample_weights,
                  std::optional<Tensor> faults, int64_t features, int64_t columns, std::vector<int64_t> groups,
                  int64_t output_type) {
  const Checked ready =
      checked(storage, tables, indices, offsets, sample_weights, faults, features, columns, groups, output_type);
  look_up_on_cpu(ready.call);
  return ready.output;
}

// Why this GPU cannot run the kernels; empty where it can.
std::string refusal(int64_t device) {
  try {
    return Kernels::of(kFused).refusal(static_cast<int>(device));
  } catch (const std::exception& error) {
    return error.what();
  }
}

// Loads a design's kernels for these types of rows.
void load(int64_t device, std::vector<int64_t> row_types, int64_t design) {
  const torch::stable::accelerator::DeviceGuard guard(static_cast<int32_t>(device));
  Driver::get().ensure_context(static_cast<int>(device));
  require(design >= 0 && design < kDesigns, "embedding_kernels knows no design ", design, ".");
  for (int64_t row_type : row_types) {
    require(row_type >= 0 && row_type < kRowTypes, "embedding_kernels knows no type of rows ", row_type, ".");
    Kernels::of(design).on(static_cast<int>(device), static_cast<Type>(row_type));
  }
}

// From how many clocks on memory is crowded, as it follows from the GPU's rates.
int64_t crowded(int64_t device) { return launching::Gpu::of(Driver::get(), static_cast<int>(device)).crowded_clocks; }

// The mangled name of the last kernel that was launched, or "".
std::string last() {
  const Kernel* const kernel = last_kernel().load(std::memory_order_relaxed);
  return kernel == nullptr ? "" : kernel->symbol;
}

}  // namespace

// `output_type`: of kernels.h. A ScalarType is no argument for a package of AOTInductor, which before PyTorch 2.11
// takes one for the next.
STABLE_TORCH_LIBRARY(embedding_kernels, library) {
  library.def(
      "lookup(Tensor storage, Tensor tables, Tensor indices, Tensor offsets, Tensor? per_sample_weights, "
      "Tensor(a!)? faults, int features, int columns, int[] groups, int output_type) -> Tensor");
  library.def("refusal(int device) -> str");
  library.def("load(int device, int[] row_types, int design) -> ()");
  library.def("crowded_clocks(int device) -> int");
  library.def("last_kernel() -> str");
}
STABLE_TORCH_LIBRARY_IMPL(embedding_kernels, CPU, library) { library.impl("lookup", TORCH_BOX(&lookup_cpu)); }
STABLE_TORCH_LIBRARY_IMPL(embedding_kernels, CUDA, library) { library.impl("lookup", TORCH_BOX(&lookup_cuda)); }
STABLE_TORCH_LIBRARY_IMPL(embedding_kernels, CompositeExplicitAutograd, library) {
  library.impl("refusal", TORCH_BOX(&refusal));
  library.impl("load", TORCH_BOX(&load));
  library.impl("crowded_clocks", TORCH_BOX(&crowded));
  library.impl("last_kernel", TORCH_BOX(&last));
}

}  // namespace embedding_kernels
