// Puts a compiled design in the place of PyTorch's EmbeddingBag on CUDA, at the dispatcher: every caller of
// torch.embedding_bag and torch.nn.EmbeddingBag runs it, with autograd, CUDA graphs and streams as before.
//
// torch.embedding_bag goes to aten::_embedding_bag where the table requires a gradient and to
// aten::_embedding_bag_forward_only otherwise; both are replaced. What the design does not compute goes to the kernels
// that PyTorch had there before. Python's side, which reads the manifest, is __init__.py.

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "design.h"
#include "driver.h"
#include "hot_rows.h"
#include "plan.h"

namespace embedding_harness {
namespace {

using at::Tensor;
using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // output, offset2bag, bag_size, max_indices

constexpr std::array<const char*, 2> kOperators = {"_embedding_bag", "_embedding_bag_forward_only"};

// PyTorch's own kernel of one operator.
struct Stock {
  c10::OperatorHandle op;
  std::optional<c10::SafeKernelFunction> kernel;  // none in a PyTorch built without this backend
};

// What is in force. Lookups read it without a lock; `changing` keeps apply and remove apart. Nothing here is ever
// freed, at the end of the process either: CUDA and the dispatcher may be gone by then.
struct Patch {
  std::mutex changing;
  std::unordered_map<std::string, std::unique_ptr<Design>> designs;  // every one applied so far
  std::atomic<const Design*> active{nullptr};
  std::unique_ptr<torch::Library> registration;
  c10::DispatchKey key = c10::DispatchKey::CUDA;
  std::vector<Stock> stock;  // as kOperators
  HotRows hot_rows;

  std::atomic<int64_t> design_calls{0};
  std::atomic<int64_t> stock_calls{0};
  std::atomic<const Kernel*> last_kernel{nullptr};
  std::atomic<const char*> last_refusal{""};
};

Patch& patch() {
  static Patch* const only = new Patch();
  return *only;
}

Outputs call_stock(std::size_t which, const char* why, const Call& call, bool scale_grad_by_freq, bool sparse) {
  Patch& state = patch();
  state.stock_calls.fetch_add(1, std::memory_order_relaxed);
  state.last_refusal.store(why, std::memory_order_relaxed);
  const Stock& stock = state.stock[which];
  TORCH_CHECK(stock.kernel.has_value(), "This PyTorch has no kernel of its own for ", kOperators[which], " on ",
              state.key, ".");
  torch::jit::Stack stack;
  torch::jit::push(stack, call.weight, call.indices, call.offsets, scale_grad_by_freq, call.mode, sparse,
                   call.sample_weights, call.include_last_offset, call.padding_idx);
  stock.kernel->callBoxed(stock.op, c10::DispatchKeySet(state.key), &stack);
  return {stack[0].toTensor(), stack[1].toTensor(), stack[2].toTensor(), stack[3].toTensor()};
}

void launch_prepare(const LoadedDesign& loaded, const Design& design, const Tensor& weight, const Tensor& rows) {
  if (rows.numel() == 0) return;
  const LoadedKernel* kernel = loaded.find(true, weight.scalar_type(), at::kLong);
  TORCH_CHECK(kernel != nullptr, "Design ", design.name, " has no prepare for ", weight.scalar_type(), ".");
  constexpr int64_t kThreads = 256;
  constexpr int64_t kLineBytes = 128;
  const int64_t item_bytes = static_cast<int64_t>(weight.element_size());
  PrepareArgs args{};
  args.weights = weight.const_data_ptr();
  args.hot_rows = rows.const_data_ptr();
  args.n_hot_rows = rows.numel();
  args.row_bytes = weight.size(1) * item_bytes;
  args.row_stride_bytes = weight.stride(0) * item_bytes;
  // About one thread per line; the kernel strides, so the extra line of a row that begins inside one is covered too.
  const int64_t lines = args.n_hot_rows * ceil_div(args.row_bytes, kLineBytes);
  const int64_t blocks = std::min<int64_t>(ceil_div(lines, kThreads), std::numeric_limits<int32_t>::max());
  launch(*kernel, weight.device(), blocks, kThreads, 1, args);
  // The rows may be replaced while this kernel waits in its stream: the allocator must know who still reads them.
  rows.record_stream(c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getStream(weight.device()));
}

Outputs call_design(const Design& design, const Call& call) {
  Patch& state = patch();
  const Tensor& weight = call.weight;
  const c10::DeviceGuard guard(weight.device());
  LookupArgs args = arguments(call);

  // As PyTorch's CUDA kernel returns them: where include_last_offset is set, bag_size has an element too many.
  const auto index_options = call.indices.options();
  Tensor output = at::empty({args.n_bags, args.dim}, weight.options());
  Tensor offset2bag = at::empty({args.n_indices}, index_options);
  Tensor bag_size = at::empty(call.offsets.sizes(), index_options);
  Tensor max_indices = at::empty({0}, index_options);
  args.output = output.mutable_data_ptr();
  args.offset2bag = offset2bag.mutable_data_ptr();
  args.bag_size = bag_size.mutable_data_ptr();

  Driver::get().ensure_context(weight.get_device());
  const LoadedDesign& loaded = design.on(weight.get_device());
  const LoadedKernel* kernel = loaded.find(false, weight.scalar_type(), call.indices.scalar_type());
  TORCH_CHECK(kernel != nullptr, "Design ", design.name, " has no lookup for ", weight.scalar_type(), " and ",
              call.indices.scalar_type(), ", although its manifest says so. Compile it again.");
  if (design.prepares && state.hot_rows.any()) {
    if (const auto rows = state.hot_rows.due(weight)) launch_prepare(loaded, design, weight, *rows);
  }
  if (args.n_bags > 0) {
    launch(*kernel, weight.device(), blocks(design.shape, args.n_bags, args.dim, loaded.multiprocessors),
           design.shape.threads_x, design.shape.threads_y, args);
  }
  state.last_kernel.store(kernel->kernel, std::memory_order_relaxed);
  state.design_calls.fetch_add(1, std::memory_order_relaxed);
  return {std::move(output), std::move(offset2bag), std::move(bag_size), std::move(max_indices)};
}

// PyTorch's rule where indices and offsets differ: both become int64. Empty where nothing is to be done.
std::optional<std::pair<Tensor, Tensor>> promoted(const Tensor& indices, const Tensor& offsets) {
  const bool differ = indices.scalar_type() != offsets.scalar_type();
  if (!differ || !is_index_type(indices.scalar_type()) || !is_index_type(offsets.scalar_type())) return std::nullopt;
  return std::make_pair(indices.to(at::kLong), offsets.to(at::kLong));
}

template <std::size_t which>
Outputs embedding_bag(const Tensor& weight, const Tensor& indices, const Tensor& offsets, bool scale_grad_by_freq,
                      int64_t mode, bool sparse, const std::optional<Tensor>& sample_weights, bool include_last_offset,
                      int64_t padding_idx) {
  const Call given{weight, indices, offsets, mode, sample_weights, include_last_offset, padding_idx};
  const Design* design = patch().active.load(std::memory_order_acquire);
  const char* why = "no design is applied";
  if (design != nullptr && !weight.is_cuda()) {
    why = "the table is not on a CUDA device";
  } else if (design != nullptr) {
    const auto pair = promoted(indices, offsets);
    const Call call = pair ? given.with(pair->first, pair->second) : given;
    why = refusal(design->supports, call);
    if (why == nullptr) return call_design(*design, call);
  }
  return call_stock(which, why, given, scale_grad_by_freq, sparse);
}

// Replacing a kernel makes the dispatcher warn, which is right for accidents. This one is meant; other warnings pass.
class QuietAboutReplacing : public c10::WarningHandler {
 public:
  void process(const c10::Warning& warning) override {
    if (warning.msg().find("Overriding a previously registered kernel") == std::string::npos) {
      outer_->process(warning);
    }
  }

 private:
  c10::WarningHandler* outer_ = c10::WarningUtils::get_warning_handler();
};

void register_operators(Patch& state, const std::string& key) {
  state.key = c10::parseDispatchKey(key);
  state.stock.clear();
  for (const char* name : kOperators) {
    const auto op = c10::Dispatcher::singleton().findSchemaOrThrow((std::string("aten::") + name).c_str(), "");
    Stock stock{op, std::nullopt};
    if (op.hasComputedKernelForDispatchKey(state.key)) stock.kernel = op.getComputedKernelForDispatchKey(state.key);
    state.stock.push_back(std::move(stock));
  }
  QuietAboutReplacing quiet;
  const c10::WarningUtils::WarningHandlerGuard guard(&quiet);
  state.registration = std::make_unique<torch::Library>(torch::Library::IMPL, "aten", state.key, __FILE__, __LINE__);
  state.registration->impl(kOperators[0], TORCH_FN(embedding_bag<0>));
  state.registration->impl(kOperators[1], TORCH_FN(embedding_bag<1>));
}

at::ScalarType scalar_type(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "float16") return at::kHalf;
  if (name == "int32") return at::kInt;
  if (name == "int64" || name.empty()) return at::kLong;  // empty: prepare, which has no index type
  TORCH_CHECK(false, "The patch does not know the dtype '", name, "' of the manifest.");
}

std::vector<at::ScalarType> scalar_types(const std::vector<std::string>& names) {
  std::vector<at::ScalarType> types;
  for (const auto& name : names) types.push_back(scalar_type(name));
  return types;
}

using Strings = std::vector<std::string>;

// Puts a design in force; `identity` tells equal ones, which are kept loaded. The lists after `launch` have an element
// per kernel. `key` is "CUDA" but in tests.
void apply(std::string key, std::string identity, std::string name, const Strings& dtypes, const Strings& index_dtypes,
           const Strings& modes, bool weighted, bool padding, int64_t max_dim, int64_t dim_multiple, bool prepares,
           const std::vector<int64_t>& launch, const Strings& functions, const std::vector<int64_t>& archs,
           const Strings& cubins, const Strings& symbols, const Strings& kernel_dtypes,
           const Strings& kernel_index_dtypes) {
  Patch& state = patch();
  const std::lock_guard<std::mutex> lock(state.changing);
  std::unique_ptr<Design>& design = state.designs[identity];
  if (design == nullptr) {
    auto fresh = std::make_unique<Design>();
    fresh->name = name;
    fresh->supports = {scalar_types(dtypes), scalar_types(index_dtypes), contains<std::string>(modes, "sum"),
                       contains<std::string>(modes, "mean"), weighted, padding, max_dim, dim_multiple};
    fresh->shape = {launch.at(0), launch.at(1), launch.at(2), launch.at(3), launch.at(4), launch.at(5)};
    fresh->prepares = prepares;
    for (std::size_t i = 0; i < symbols.size(); i++) {
      fresh->kernels.push_back({functions.at(i) == "prepare", static_cast<int>(archs.at(i)), cubins.at(i), symbols[i],
                                scalar_type(kernel_dtypes.at(i)), scalar_type(kernel_index_dtypes.at(i))});
    }
    design = std::move(fresh);
  }
  if (state.registration == nullptr) register_operators(state, key);
  state.design_calls = 0;
  state.stock_calls = 0;
  state.last_kernel = nullptr;
  state.last_refusal = "";
  state.active.store(design.get(), std::memory_order_release);
}

void remove() {
  Patch& state = patch();
  const std::lock_guard<std::mutex> lock(state.changing);
  state.active.store(nullptr, std::memory_order_release);
  state.registration.reset();
  state.hot_rows.forget_all();
}

const Design& active_design() {
  const Design* design = patch().active.load(std::memory_order_acquire);
  TORCH_CHECK(design != nullptr, "No design is applied.");
  return *design;
}

std::string active() {
  const Design* design = patch().active.load(std::memory_order_acquire);
  return design ? design->name : "";
}

// Calls of the design, calls of PyTorch's own kernel, the last kernel launched and its architecture, and why the last
// call went to PyTorch's own.
std::tuple<int64_t, int64_t, std::string, std::string, std::string> calls() {
  const Patch& state = patch();
  const Kernel* last = state.last_kernel.load();
  return {state.design_calls.load(), state.stock_calls.load(), last ? last->symbol : "",
          last ? "sm_" + std::to_string(last->arch) : "", state.last_refusal.load()};
}

// What a call would do, as JSON: {"refusal": ...} or the kernel's arguments (pointers left out) and the grid.
std::string plan(const Tensor& weight, const Tensor& indices, const Tensor& offsets, int64_t mode,
                 const std::optional<Tensor>& sample_weights, bool include_last_offset, int64_t padding_idx,
                 int64_t multiprocessors) {
  const Design& design = active_design();
  const Call given{weight, indices, offsets, mode, sample_weights, include_last_offset, padding_idx};
  const auto pair = promoted(indices, offsets);
  const Call call = pair ? given.with(pair->first, pair->second) : given;
  std::ostringstream json;
  if (const char* why = refusal(design.supports, call)) {
    json << "{\"refusal\": \"" << why << "\"}";
    return json.str();
  }
  const LookupArgs args = arguments(call);
  json << "{\"n_indices\": " << args.n_indices << ", \"n_bags\": " << args.n_bags << ", \"dim\": " << args.dim
       << ", \"rows\": " << args.rows << ", \"row_stride\": " << args.row_stride
       << ", \"column_stride\": " << args.column_stride << ", \"sample_weight_stride\": " << args.sample_weight_stride
       << ", \"padding_idx\": " << args.padding_idx << ", \"mode\": " << args.mode
       << ", \"weighted\": " << (args.sample_weights ? "true" : "false") << ", \"index_bytes\": "
       << call.indices.element_size() << ", \"blocks\": "
       << blocks(design.shape, args.n_bags, args.dim, multiprocessors) << "}";
  return json.str();
}

// Python's side has checked the rows against the table.
void set_hot_rows(const Tensor& weight, const std::optional<Tensor>& rows, int64_t renew_every) {
  if (rows.has_value()) {
    patch().hot_rows.set(weight, *rows, renew_every);
  } else {
    patch().hot_rows.forget(weight);
  }
}

void prepare(const Tensor& weight) {
  const Design& design = active_design();
  TORCH_CHECK(design.prepares, "Design ", design.name, " prepares nothing.");
  const auto rows = patch().hot_rows.of(weight);
  TORCH_CHECK(rows.has_value(), "No hot rows are set for this table; call set_hot_rows first.");
  const c10::DeviceGuard guard(weight.device());
  Driver::get().ensure_context(weight.get_device());
  launch_prepare(design.on(weight.get_device()), design, weight, *rows);
}

void reset_persisting_l2(int64_t device) {
  const c10::DeviceGuard guard(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)));
  const Driver& driver = Driver::get();
  driver.ensure_context(static_cast<int>(device));
  driver.check(driver.context_reset_persisting_l2(), "cuCtxResetPersistingL2Cache");
}

// Returns what the driver made of it: it rounds, and has a limit of its own.
int64_t set_persisting_l2_bytes(int64_t device, int64_t bytes) {
  const c10::DeviceGuard guard(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)));
  const Driver& driver = Driver::get();
  driver.ensure_context(static_cast<int>(device));
  driver.check(driver.context_set_limit(kLimitPersistingL2Bytes, static_cast<std::size_t>(bytes)), "cuCtxSetLimit");
  std::size_t granted = 0;
  driver.check(driver.context_get_limit(&granted, kLimitPersistingL2Bytes), "cuCtxGetLimit");
  return static_cast<int64_t>(granted);
}

}  // namespace

TORCH_LIBRARY(embedding_harness, library) {
  library.def(
      "apply(str key, str identity, str name, str[] dtypes, str[] index_dtypes, str[] modes, bool weighted, "
      "bool padding, int max_dim, int dim_multiple, bool prepares, int[] launch, str[] functions, int[] archs, "
      "str[] cubins, str[] symbols, str[] kernel_dtypes, str[] kernel_index_dtypes) -> ()",
      &apply);
  library.def("remove", &remove);
  library.def("active", &active);
  library.def("calls", &calls);
  library.def(
      "plan(Tensor weight, Tensor indices, Tensor offsets, int mode, Tensor? sample_weights, "
      "bool include_last_offset, int padding_idx, int multiprocessors) -> str",
      &plan);
  library.def("set_hot_rows", &set_hot_rows);
  library.def("prepare", &prepare);
  library.def("reset_persisting_l2", &reset_persisting_l2);
  library.def("set_persisting_l2_bytes", &set_persisting_l2_bytes);
}

}  // namespace embedding_harness
