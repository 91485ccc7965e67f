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
#include <span>
#include <string>
#include <utility>
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

// Every question to a tensor is a call into PyTorch, so each is asked once.

// Where a tensor is, in PyTorch's own numbers.
struct Place {
  int32_t device_type = -1, device = -1;
  bool operator==(const Place&) const = default;

  static Place of(const Tensor& tensor) {
    Place place;
    aoti_torch_get_device_type(tensor.get(), &place.device_type);
    aoti_torch_get_device_index(tensor.get(), &place.device);
    return place;
  }
};

// An output [rows, columns]. Not through the dispatcher, which looks its operators up by name.
Tensor empty(int64_t rows, int64_t columns, Type type, const Place& place) {
  const int32_t dtype = type == kFloat32   ? aoti_torch_dtype_float32()
                        : type == kFloat16 ? aoti_torch_dtype_float16()
                                           : aoti_torch_dtype_bfloat16();
  const int64_t sizes[] = {rows, columns}, strides[] = {columns, 1};
  AtenTensorHandle made = nullptr;
  require(aoti_torch_empty_strided(2, sizes, strides, dtype, place.device_type, place.device, &made) == 0,
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

using Numbers = std::span<const int64_t>;

// Of all that the operator is told in numbers, those of the groups.
std::vector<Group> groups_of(Numbers numbers, int64_t n_tables) {
  std::vector<Group> groups((numbers.size() - kCallNumbers) / kGroupNumbers);
  std::memcpy(groups.data(), numbers.data() + kCallNumbers, groups.size() * sizeof(Group));
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
  Call call;
  Tensor indices, offsets, output;
  std::optional<Tensor> sample_weights;
};

Tensor as(const Tensor& tensor, ScalarType from, ScalarType to) {
  if (from != to) return as(torch::stable::to(tensor, to), to, to);
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

Checked checked(const Tensor& storage, const Tensor& tables, const Tensor& indices, const Tensor& offsets,
                const std::optional<Tensor>& sample_weights, const std::optional<Tensor>& faults, Numbers numbers) {
  Call call{};
  TablesArgs& args = call.args;
  require(tables.scalar_type() == ScalarType::Long && tables.dim() == 2 && tables.is_contiguous() &&
              tables.size(1) * static_cast<int64_t>(sizeof(int64_t)) == static_cast<int64_t>(sizeof(TableRows)),
          "embedding_kernels: tables are described by int64 [tables, ", sizeof(TableRows) / sizeof(int64_t), "].");
  require(indices.defined() && offsets.defined(), "embedding_kernels: indices and offsets are tensors, not None.");
  require(indices.dim() == 1 && offsets.dim() == 1, "embedding_kernels: indices and offsets have one dimension.");
  const Place place = Place::of(tables);
  require(Place::of(storage) == place && Place::of(indices) == place && Place::of(offsets) == place,
          "embedding_kernels: indices and offsets are not on the device of their tables; move them there.");
  const ScalarType index_type = indices.scalar_type(), offset_type = offsets.scalar_type();
  for (const ScalarType type : {index_type, offset_type}) {
    require(type == ScalarType::Int || type == ScalarType::Long,
            "embedding_kernels: indices and offsets are int32 or int64, not ", torch::headeronly::toString(type), ".");
  }
  // Where they differ both become int64, as in PyTorch.
  const ScalarType common = index_type == offset_type ? index_type : ScalarType::Long;
  Tensor typed_indices = as(indices, index_type, common), typed_offsets = as(offsets, offset_type, common);
  require(numbers.size() > kCallNumbers && (numbers.size() - kCallNumbers) % kGroupNumbers == 0,
          "embedding_kernels: a call is told by ", kCallNumbers, " numbers and ", kGroupNumbers,
          " of each group; a model that another version exported or pickled has to be made anew by this one.");
  const int64_t features = numbers[0], columns = numbers[1], output_type = numbers[2];
  const int64_t n_offsets = offsets.numel();
  call.index_type = common == ScalarType::Int ? kInt32 : kInt64, call.output_type = static_cast<Type>(output_type);
  require(output_type >= kFloat32 && output_type <= kBFloat16,
          "embedding_kernels: outputs are float32, float16 or bfloat16.");
  require(features > 0 && n_offsets > 0 && (n_offsets - 1) % features == 0, "embedding_kernels: ", n_offsets,
          " offsets are not features * bags + 1 for ", features, " features.");
  call.n_features = features;
  args.n_tables = tables.size(0);
  call.groups = groups_of(numbers, args.n_tables);
  args.n_indices = indices.numel();
  args.n_bags = (n_offsets - 1) / features;
  using launching::kMostCounted;
  require(args.n_indices <= kMostCounted && args.n_bags <= kMostCounted,
          "embedding_kernels: 2^31 - 1024 lookups or bags and more in one call are too many; split the batch.");
  std::optional<Tensor> typed_weights;
  if (sample_weights.has_value()) {
    require(
        sample_weights->dim() == 1 && sample_weights->numel() == args.n_indices && Place::of(*sample_weights) == place,
        "embedding_kernels: there is one per-sample weight beside each index, on its device.");
    const ScalarType type = sample_weights->scalar_type();
    require(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16 ||
                type == ScalarType::Double,
            "embedding_kernels: per-sample weights are float32, float16, bfloat16 or float64, not ",
            torch::headeronly::toString(type), ".");
    typed_weights = as(*sample_weights, type, ScalarType::Float);
    args.sample_weights = static_cast<const float*>(typed_weights->data_ptr());
  }
  if (faults.has_value()) {
    require(faults->numel() * static_cast<int64_t>(sizeof(int64_t)) == static_cast<int64_t>(sizeof(LookupFaults)) &&
                faults->scalar_type() == ScalarType::Long && Place::of(*faults) == place,
            "embedding_kernels: faults are counted in int64 [", sizeof(LookupFaults) / sizeof(int64_t), "].");
    args.faults = static_cast<LookupFaults*>(faults->data_ptr());
  }
  Tensor output = empty(args.n_bags, columns, call.output_type, place);
  args.storage = storage.data_ptr();
  args.tables = static_cast<const TableRows*>(tables.data_ptr());
  args.indices = typed_indices.data_ptr();
  args.offsets = typed_offsets.data_ptr();
  args.output = output.data_ptr();
  args.output_stride = columns;
  args.rows_per_bag =
      static_cast<float>(args.n_indices) / static_cast<float>(std::max<int64_t>(args.n_bags * features, 1));
  call.output_bits = reinterpret_cast<int64_t>(args.output) | columns * bytes_of(call.output_type);
  return {std::move(call), std::move(typed_indices), std::move(typed_offsets), std::move(output),
          std::move(typed_weights)};
}

// In place of a list, for which PyTorch takes as long as for all other arguments.
Numbers told_by(const Tensor& numbers) {
  require(
      numbers.is_cpu() && numbers.scalar_type() == ScalarType::Long && numbers.dim() == 1 && numbers.is_contiguous(),
      "embedding_kernels: a call's numbers are int64 [n] on the CPU.");
  return {static_cast<const int64_t*>(numbers.data_ptr()), static_cast<std::size_t>(numbers.numel())};
}
Numbers told_by(const std::vector<int64_t>& numbers) { return numbers; }

// Parameters are references, for otherwise all are copied once more.
template <typename Told>
Tensor lookup_cuda(const Tensor& storage, const Tensor& tables, const Tensor& indices, const Tensor& offsets,
                   const std::optional<Tensor>& sample_weights, const std::optional<Tensor>& faults,
                   const Told& numbers) {
  Checked ready = checked(storage, tables, indices, offsets, sample_weights, faults, told_by(numbers));
  if (ready.call.args.n_bags > 0) {
    const int device = tables.get_device();
    const Driver& driver = Driver::get();
    std::optional<torch::stable::accelerator::DeviceGuard> guard;
    if (!driver.is_current(device)) {  // mostly it is
      guard.emplace(device);
      driver.ensure_context(device);
    }
    look_up_on_gpu(ready.call, device, current_stream(device));
  }
  return std::move(ready.output);
}

template <typename Told>
Tensor lookup_cpu(const Tensor& storage, const Tensor& tables, const Tensor& indices, const Tensor& offsets,
                  const std::optional<Tensor>& sample_weights, const std::optional<Tensor>& faults,
                  const Told& numbers) {
  Checked ready = checked(storage, tables, indices, offsets, sample_weights, faults, told_by(numbers));
  look_up_on_cpu(ready.call);
  return std::move(ready.output);
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

// `numbers`: see lookup.h. They are one argument, for each by itself costs as much as several numbers of it; and the
// output's type is a number, since before PyTorch 2.11 packages of AOTInductor take one ScalarType for the next. A
// graph holds them as a list: a tensor on the CPU in it would keep torch.compile from capturing CUDA graphs.
STABLE_TORCH_LIBRARY(embedding_kernels, library) {
  const std::string arguments =
      "(Tensor storage, Tensor tables, Tensor indices, Tensor offsets, Tensor? per_sample_weights, Tensor(a!)? "
      "faults, ";
  library.def(("lookup" + arguments + "int[] numbers) -> Tensor").c_str());
  library.def(("lookup_eager" + arguments + "Tensor numbers) -> Tensor").c_str());
  library.def("refusal(int device) -> str");
  library.def("load(int device, int[] row_types, int design) -> ()");
  library.def("crowded_clocks(int device) -> int");
  library.def("last_kernel() -> str");
}
STABLE_TORCH_LIBRARY_IMPL(embedding_kernels, CPU, library) {
  library.impl("lookup", TORCH_BOX(&lookup_cpu<std::vector<int64_t>>));
  library.impl("lookup_eager", TORCH_BOX(&lookup_cpu<Tensor>));
}
STABLE_TORCH_LIBRARY_IMPL(embedding_kernels, CUDA, library) {
  library.impl("lookup", TORCH_BOX(&lookup_cuda<std::vector<int64_t>>));
  library.impl("lookup_eager", TORCH_BOX(&lookup_cuda<Tensor>));
}
STABLE_TORCH_LIBRARY_IMPL(embedding_kernels, CompositeExplicitAutograd, library) {
  library.impl("refusal", TORCH_BOX(&refusal));
  library.impl("load", TORCH_BOX(&load));
  library.impl("crowded_clocks", TORCH_BOX(&crowded));
  library.impl("last_kernel", TORCH_BOX(&last));
}

}  // namespace embedding_kernels
