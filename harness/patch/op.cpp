// Puts a compiled design in the place of PyTorch's EmbeddingBag on CUDA, at the dispatcher: every caller of
// torch.embedding_bag and torch.nn.EmbeddingBag runs it, with autograd, CUDA graphs and streams as before.
//
// torch.embedding_bag goes to aten::_embedding_bag where the table requires a gradient and to
// aten::_embedding_bag_forward_only otherwise; both are replaced. What the design does not compute goes to the kernels
// that PyTorch had there before. Python's side, which reads the manifest, is __init__.py.

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "applied.h"
#include "calls.h"
#include "design.h"
#include "driver.h"
#include "hot_rows.h"
#include "plan.h"

namespace embedding_harness {
namespace {

using at::Tensor;
using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // output, offset2bag, bag_size, max_indices

constexpr std::array<const char*, 2> kOperators = {"_embedding_bag", "_embedding_bag_forward_only"};
constexpr std::size_t kWithGradient = 0;

// PyTorch's own kernel of one operator.
struct Stock {
  c10::OperatorHandle op;
  std::optional<c10::SafeKernelFunction> kernel;  // none in a PyTorch built without this backend
};

// How PyTorch was patched. `changing` keeps apply and remove apart. Never freed, as in Applied.
struct Patch {
  std::mutex changing;
  std::unique_ptr<torch::Library> registration;
  c10::DispatchKey key = c10::DispatchKey::CUDA;
  std::vector<Stock> stock;  // as kOperators
  HotRows hot_rows;
};

Patch& patch() {
  static Patch* const only = new Patch();
  return *only;
}

Outputs call_stock(std::size_t which, const char* why, const Call& call, bool scale_grad_by_freq, bool sparse) {
  const Patch& state = patch();
  calls().count_stock(why);
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
  const LoadedKernel* kernel =
      loaded.find({"prepare", weight.scalar_type(), at::ScalarType::Undefined, at::ScalarType::Undefined, true});
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
  const int64_t blocks = std::min(ceil_div(lines, kThreads), kMaxBlocks);
  launch(*kernel, weight.device(), {blocks}, kThreads, args);
  // The rows may be replaced while this kernel waits in its stream: the allocator must know who still reads them.
  rows.record_stream(c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getStream(weight.device()));
}

Outputs call_design(const Design& design, const Call& call, bool gradient) {
  Patch& state = patch();
  const Tensor& weight = call.weight;
  const c10::DeviceGuard guard(weight.device());
  LookupArgs args = arguments(call);

  // As PyTorch's CUDA kernel returns them. Only the backward pass reads all but the first, so where there is none a
  // design may leave them out.
  const bool output_only = design.output_only && !gradient;
  const auto index_options = call.indices.options();
  Tensor output = at::empty({args.n_bags, args.dim}, weight.options());
  Tensor offset2bag = at::empty({output_only ? 0 : args.n_indices}, index_options);
  Tensor bag_size = at::empty({output_only ? 0 : call.offsets.numel()}, index_options);
  Tensor max_indices = at::empty({0}, index_options);
  args.output = output.mutable_data_ptr();
  args.offset2bag = output_only ? nullptr : offset2bag.mutable_data_ptr();
  args.bag_size = output_only ? nullptr : bag_size.mutable_data_ptr();

  Driver::get().ensure_context(weight.get_device());
  const LoadedDesign& loaded = design.on(weight.get_device());
  const bool generic = !is_fast(args, static_cast<int64_t>(weight.element_size()));
  const LoadedKernel* kernel =
      loaded.find({"lookup", weight.scalar_type(), call.indices.scalar_type(), at::ScalarType::Undefined, generic});
  TORCH_CHECK(kernel != nullptr, "Design ", design.name, " has no lookup for ", weight.scalar_type(), " and ",
              call.indices.scalar_type(), ", although its manifest says so. Compile it again.");
  if (design.prepares && state.hot_rows.any()) {
    if (const auto rows = state.hot_rows.due(weight)) launch_prepare(loaded, design, weight, *rows);
  }
  if (args.n_bags > 0) {
    launch(*kernel, weight.device(), {blocks(design.shape, args.n_bags, args.dim, loaded.gpu.multiprocessors)},
           design.shape.threads_x, args);
  }
  calls().count(*kernel->kernel);
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
  const Design* design = applied().per_table.load(std::memory_order_acquire);
  const char* why = "no design is applied";
  if (design != nullptr && !weight.is_cuda()) {
    why = "the table is not on a CUDA device";
  } else if (design != nullptr) {
    const auto pair = promoted(indices, offsets);
    const Call call = pair ? given.with(pair->first, pair->second) : given;
    why = refusal(design->supports, design->shape, call);
    if (why == nullptr) return call_design(*design, call, which == kWithGradient);
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

// Puts a design, defined before, in the place of EmbeddingBag. `key` is "CUDA" but in tests.
void apply(std::string identity, std::string key) {
  Patch& state = patch();
  const std::lock_guard<std::mutex> lock(state.changing);
  const Design& design = defined(identity);
  if (state.registration == nullptr) register_operators(state, key);
  calls().start_again();
  applied().per_table.store(&design, std::memory_order_release);
}

void remove() {
  Patch& state = patch();
  const std::lock_guard<std::mutex> lock(state.changing);
  applied().per_table.store(nullptr, std::memory_order_release);
  applied().all_tables.store(nullptr, std::memory_order_release);
  state.registration.reset();
  state.hot_rows.forget_all();
}

const Design& active_design() {
  const Design* design = applied().per_table.load(std::memory_order_acquire);
  TORCH_CHECK(design != nullptr, "No design is applied.");
  return *design;
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
  if (const char* why = refusal(design.supports, design.shape, call)) {
    json << "{\"refusal\": \"" << why << "\"}";
    return json.str();
  }
  const LookupArgs args = arguments(call);
  json << "{\"n_indices\": " << args.n_indices << ", \"n_bags\": " << args.n_bags << ", \"dim\": " << args.dim
       << ", \"rows\": " << args.rows << ", \"row_stride\": " << args.row_stride
       << ", \"column_stride\": " << args.column_stride << ", \"sample_weight_stride\": " << args.sample_weight_stride
       << ", \"padding_idx\": " << args.padding_idx << ", \"mode\": " << args.mode
       << ", \"weighted\": " << (args.sample_weights ? "true" : "false")
       << ", \"index_bytes\": " << call.indices.element_size()
       << ", \"fast\": " << (is_fast(args, static_cast<int64_t>(weight.element_size())) ? "true" : "false")
       << ", \"blocks\": " << blocks(design.shape, args.n_bags, args.dim, multiprocessors) << "}";
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

// `given`: the rows to pin, each within the table, which is the caller's to see to; otherwise those that were set.
void prepare(const Tensor& weight, const std::optional<Tensor>& given) {
  const Design& design = active_design();
  TORCH_CHECK(design.prepares, "Design ", design.name, " prepares nothing.");
  const auto rows = given.has_value() ? given : patch().hot_rows.of(weight);
  TORCH_CHECK(rows.has_value(), "No hot rows are set for this table; call set_hot_rows first.");
  TORCH_CHECK(rows->device() == weight.device() && rows->scalar_type() == at::kLong && rows->is_contiguous(),
              "Rows to pin are int64 and contiguous, on the table's device.");
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

TORCH_LIBRARY_FRAGMENT(embedding_harness, library) {
  library.def("apply(str identity, str key) -> ()", &apply);
  library.def("remove", &remove);
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
