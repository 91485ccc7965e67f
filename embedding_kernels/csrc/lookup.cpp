// embedding_kernels::lookup: the bags of many tables in one call, for inference. In PyTorch's stable ABI, so that one build
// serves every PyTorch from 2.10 on. On CUDA the kernels in use compute it, in one launch for each type of rows (or a few, where a
// route allows fewer tables at once); nothing is waited for, nothing allocated but the output, so a CUDA graph may capture it.
// The CPU is served by cpu.cpp.

#include "lookup.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>

#include "kernels.h"

namespace embedding_kernels {
namespace {

using torch::headeronly::DeviceType;

EkType parsed(ScalarType type, const char* what) {
  switch (type) {
    case ScalarType::Float: return EK_FLOAT32;
    case ScalarType::Half: return EK_FLOAT16;
    case ScalarType::BFloat16: return EK_BFLOAT16;
    case ScalarType::Int: return EK_INT32;
    case ScalarType::Long: return EK_INT64;
    default: STD_TORCH_CHECK(false, "embedding_kernels: ", what, " have the dtype ", torch::headeronly::toString(type), ".");
  }
}

CUstream current_stream(int device) {
  // The CUDA part of PyTorch is not there in builds for the CPU, so it is asked for by name.
  static const auto get = reinterpret_cast<AOTITorchError (*)(int32_t, void**)>(dlsym(RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
  STD_TORCH_CHECK(get != nullptr, "embedding_kernels: this PyTorch has no CUDA.");
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(get(device, &stream));
  return static_cast<CUstream>(stream);
}

bool is_within(int64_t number, const int64_t (&limits)[2], int64_t scale) {
  return number >= limits[0] * scale && (limits[1] == 0 || number < limits[1] * scale);
}

int64_t bytes_of(EkType type) { return type == EK_FLOAT32 ? 4 : 2; }

bool fits(const Route& route, const Group& group, const Call& call, int64_t multiprocessors) {
  const EkRoute& facts = route.facts;
  const bool plain = call.sample_weights == nullptr && !group.has(Group::kLargest);
  // Short of 2^31 by more than kernels count on beyond the last row and bag.
  constexpr int64_t most = std::numeric_limits<int32_t>::max() - 1024;
  const bool small = !group.has(Group::kHuge) && call.n_indices <= most && call.n_bags * call.n_features <= most;
  if (!facts.any && !(plain && small)) return false;
  if (facts.alike && !group.has(Group::kAlike)) return false;
  const bool whole = group.row_bits % 16 == 0 && group.column_bits * bytes_of(call.output_type) % 16 == 0;
  if (facts.whole_vectors && !(plain && whole)) return false;
  return is_within(call.n_indices, facts.rows_per_bag, std::max<int64_t>(call.n_bags * call.n_features, 1)) &&
         is_within(call.n_bags, facts.bags_per_sm, multiprocessors);
}

struct Choice {
  const Route* route;
  const LoadedKernel* kernel;
};

Choice choose(const KernelSet& set, const Loaded& loaded, const Group& group, const Call& call) {
  for (const Route& route : set.routes()) {
    if (!fits(route, group, call, loaded.multiprocessors)) continue;
    if (const LoadedKernel* kernel = loaded.find(route, group.row_type, call.index_type, call.output_type)) return {&route, kernel};
  }
  STD_TORCH_CHECK(false, "embedding_kernels: ", set.name, " has no kernel for this call (", call.n_features, " tables, ",
                  call.n_bags, " bags each, ", call.n_indices, " lookups).");
}

void launch(const Driver& driver, const KernelSet& set, const Loaded& loaded, const Group& group, const Call& call, CUstream stream) {
  const Choice choice = choose(set, loaded, group, call);
  const EkRoute& route = choice.route->facts;
  const EkKernel& kernel = choice.kernel->kernel->facts;
  TablesArgs args = call.args;
  args.dim = group.most_columns;
  constexpr int64_t most_in_y = 65535;  // the hardware's limit
  const int64_t allowed = route.blocks_per_sm > 0 ? group.count : most_in_y;
  const int64_t pieces = ceil_div(group.count, route.tables_at_once > 0 ? std::min(route.tables_at_once, allowed) : allowed);
  const int64_t each = ceil_div(group.count, pieces);  // evenly
  for (int64_t first = 0; first < group.count; first += each) {
    args.tables = call.args.tables + group.first + first;
    args.n_tables = std::min(each, group.count - first);
    const bool stays = route.blocks_per_sm > 0;
    const int64_t x = stays ? std::min(route.blocks_per_sm * loaded.multiprocessors, args.n_tables * call.n_bags) : call.n_bags;
    STD_TORCH_CHECK(x <= std::numeric_limits<int32_t>::max(), "embedding_kernels: ", call.n_bags, " bags are more than one launch has room for.");
    void* parameters[] = {&args};
    const CUresult result = driver.launch_kernel(
        choice.kernel->function, static_cast<unsigned>(x), stays ? 1 : static_cast<unsigned>(args.n_tables), 1,
        static_cast<unsigned>(kernel.threads_x), static_cast<unsigned>(kernel.threads_y), 1, 0, stream, parameters, nullptr);
    STD_TORCH_CHECK(result == 0, "CUDA error: ", driver.describe(result), " when launching ", choice.kernel->kernel->symbol, ".");
  }
  state().calls.fetch_add(1, std::memory_order_relaxed);
  state().last.store(choice.kernel->kernel, std::memory_order_relaxed);
}

// The arguments, checked as far as the host can without waiting for a GPU.
struct Checked {
  Call call;
  Tensor indices, offsets;
  std::optional<Tensor> sample_weights;
  Tensor output;
};

Checked checked(const std::optional<Tensor>& storage, const Tensor& tables, const Tensor& given_indices, const Tensor& given_offsets,
                const std::optional<Tensor>& sample_weights, const std::optional<Tensor>& faults, int64_t columns,
                ScalarType output_type) {
  Checked checked{Call{}, given_indices, given_offsets, sample_weights, tables};
  STD_TORCH_CHECK(tables.dim() == 2 && tables.size(1) * 8 == sizeof(TableRows) && tables.is_contiguous() &&
                      tables.scalar_type() == ScalarType::Long,
                  "embedding_kernels: tables are described by int64 [tables, ", sizeof(TableRows) / 8, "].");
  STD_TORCH_CHECK(given_indices.dim() == 1 && given_offsets.dim() == 1, "embedding_kernels: indices and offsets have one dimension.");
  if (given_indices.scalar_type() != given_offsets.scalar_type()) {  // as in PyTorch, both become int64
    checked.indices = torch::stable::to(given_indices, ScalarType::Long);
    checked.offsets = torch::stable::to(given_offsets, ScalarType::Long);
  }
  if (!checked.indices.is_contiguous()) checked.indices = torch::stable::contiguous(checked.indices);
  if (!checked.offsets.is_contiguous()) checked.offsets = torch::stable::contiguous(checked.offsets);
  Call& call = checked.call;
  call.index_type = parsed(checked.indices.scalar_type(), "indices");
  call.output_type = parsed(output_type, "outputs");
  STD_TORCH_CHECK(call.index_type >= EK_INT32 && call.output_type < EK_INT32, "embedding_kernels: indices are int32 or int64, outputs floating-point.");
  call.n_features = tables.size(0);
  call.n_indices = checked.indices.numel();
  STD_TORCH_CHECK(call.n_features > 0 && checked.offsets.numel() > 0 && (checked.offsets.numel() - 1) % call.n_features == 0,
                  "embedding_kernels: ", checked.offsets.numel(), " offsets are not tables × bags + 1 for ", call.n_features, " tables.");
  call.n_bags = (checked.offsets.numel() - 1) / call.n_features;
  for (const Tensor* each : {&checked.indices, &checked.offsets}) {
    STD_TORCH_CHECK(each->device() == tables.device(), "embedding_kernels: indices and offsets are on another device than the tables.");
  }
  if (checked.sample_weights.has_value()) {
    STD_TORCH_CHECK(sample_weights->numel() == call.n_indices && sample_weights->device() == tables.device(),
                    "embedding_kernels: there is one per-sample weight beside each index.");
    if (sample_weights->scalar_type() != ScalarType::Float) checked.sample_weights = torch::stable::to(*sample_weights, ScalarType::Float);
    if (!checked.sample_weights->is_contiguous()) checked.sample_weights = torch::stable::contiguous(*checked.sample_weights);
    call.sample_weights = static_cast<const float*>(checked.sample_weights->const_data_ptr());
  }
  checked.output = torch::stable::new_empty(tables, {call.n_bags, columns}, output_type);
  TablesArgs& args = call.args;
  args.storage = storage.has_value() ? storage->const_data_ptr() : nullptr;
  args.tables = static_cast<const TableRows*>(tables.const_data_ptr());
  args.indices = checked.indices.const_data_ptr();
  args.offsets = checked.offsets.const_data_ptr();
  args.sample_weights = call.sample_weights;
  args.output = checked.output.mutable_data_ptr();
  args.faults = faults.has_value() ? static_cast<LookupFaults*>(faults->mutable_data_ptr()) : nullptr;
  args.n_indices = call.n_indices, args.n_bags = call.n_bags, args.n_tables = call.n_features;
  args.output_stride = columns;
  args.rows_per_bag = static_cast<float>(call.n_indices) / static_cast<float>(std::max<int64_t>(call.n_bags * call.n_features, 1));
  return checked;
}

std::vector<Group> groups_of(const std::vector<int64_t>& numbers, int64_t n_features) {
  std::vector<Group> groups;
  int64_t next = 0;
  for (std::size_t at = 0; at + kGroupNumbers <= numbers.size(); at += kGroupNumbers) {
    const int64_t* n = numbers.data() + at;
    groups.push_back({static_cast<EkType>(n[0]), n[1], n[2], n[3], n[4], n[5], n[6]});
    STD_TORCH_CHECK(groups.back().first == next && groups.back().count > 0, "embedding_kernels: groups of tables follow each other.");
    next += groups.back().count;
  }
  STD_TORCH_CHECK(next == n_features && numbers.size() % kGroupNumbers == 0, "embedding_kernels: groups cover all tables.");
  return groups;
}

Tensor lookup_cuda(std::optional<Tensor> storage, Tensor tables, Tensor indices, Tensor offsets, std::optional<Tensor> sample_weights,
                   std::optional<Tensor> faults, int64_t columns, std::vector<int64_t> group_numbers, ScalarType output_type) {
  const int device = tables.get_device();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const Checked call = checked(storage, tables, indices, offsets, sample_weights, faults, columns, output_type);
  if (call.call.n_bags == 0) return call.output;
  const KernelSet* set = state().used.load(std::memory_order_acquire);
  STD_TORCH_CHECK(set != nullptr, "embedding_kernels: no kernels are in use; call embedding_kernels.warm_up().");
  const Driver& driver = Driver::get();
  driver.ensure_context(device);
  const Loaded& loaded = set->on(device);
  const CUstream stream = current_stream(device);
  for (const Group& group : groups_of(group_numbers, call.call.n_features)) launch(driver, *set, loaded, group, call.call, stream);
  return call.output;
}

Tensor lookup_cpu(std::optional<Tensor> storage, Tensor tables, Tensor indices, Tensor offsets, std::optional<Tensor> sample_weights,
                  std::optional<Tensor> faults, int64_t columns, std::vector<int64_t> group_numbers, ScalarType output_type) {
  const Checked call = checked(storage, tables, indices, offsets, sample_weights, faults, columns, output_type);
  for (const Group& group : groups_of(group_numbers, call.call.n_features)) look_up_on_cpu(group, call.call);
  return call.output;
}

}  // namespace

STABLE_TORCH_LIBRARY(embedding_kernels, library) {
  library.def(
      "lookup(Tensor? storage, Tensor tables, Tensor indices, Tensor offsets, Tensor? per_sample_weights, Tensor? faults, "
      "int columns, int[] groups, ScalarType dtype) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(embedding_kernels, CUDA, library) { library.impl("lookup", TORCH_BOX(&lookup_cuda)); }
STABLE_TORCH_LIBRARY_IMPL(embedding_kernels, CPU, library) { library.impl("lookup", TORCH_BOX(&lookup_cpu)); }

}  // namespace embedding_kernels
