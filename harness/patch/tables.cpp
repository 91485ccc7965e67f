// embedding_bags: the bags of many tables in one call, for inference. A design that takes all tables computes it in one
// launch; what none computes, on CUDA or the CPU, PyTorch's own operators do, table by table.

#include <algorithm>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_embedding_bag_forward_only.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "applied.h"
#include "calls.h"
#include "design.h"
#include "driver.h"
#include "launching/tickets.h"
#include "table_sets.h"
#include "tables.h"

namespace embedding_harness {
namespace {

using at::Tensor;
using MaybeTensor = std::optional<Tensor>;

// Never freed: at the end of the process CUDA may be gone.
TableSets& table_sets() {
  static TableSets* const only = new TableSets();
  return *only;
}
launching::TicketBooth& tickets() {
  static auto* const only = new launching::TicketBooth();
  return *only;
}

// The looked-up rows of one table as float32 [n, dim].
Tensor gathered(const TablesCall& call, std::size_t table, const Tensor& indices) {
  Tensor rows = call.weights[table].index_select(0, indices);
  if (!call.quantised()) return rows.to(at::kFloat);
  rows = rows.narrow(1, 0, call.row_bytes(call.dim));
  const Tensor values =
      call.row_type == kFourBits
          ? at::stack({rows.bitwise_and(15), rows.bitwise_right_shift(4)}, 2).flatten(1).narrow(1, 0, call.dim)
          : rows;
  const Tensor pairs = call.scales[table].index_select(0, indices).view(at::kHalf).to(at::kFloat);
  return values.to(at::kFloat).mul(pairs.narrow(1, 0, 1)).add(pairs.narrow(1, 1, 1));
}

// PyTorch's own errors would not say of which table. On a GPU its kernels assert.
void check_row_numbers(const Tensor& indices, int64_t rows, int64_t table) {
  if (indices.numel() == 0) return;
  const auto [least, most] = at::aminmax(indices);
  const int64_t lowest = least.item().toLong(), wrong = lowest < 0 ? lowest : most.item().toLong();
  TORCH_CHECK_INDEX(wrong >= 0 && wrong < rows, "embedding_bags got row number ", wrong, " for table ", table,
                    ", which has ", rows, " rows.");
}

// Where bags begin, on the host, or ValueError. Waits for the GPU where they lie there.
Tensor checked_offsets(const TablesCall& call) {
  const Tensor offsets = call.offsets.to(at::kCPU, at::kLong);
  const int64_t* at = offsets.const_data_ptr<int64_t>();
  const int64_t last = offsets.numel() - 1, n_indices = call.indices.numel();
  for (int64_t i = 0; i <= last; i++) {
    TORCH_CHECK_VALUE(at[i] >= (i == 0 ? 0 : at[i - 1]) && at[i] <= n_indices,
                      "embedding_bags takes offsets that ascend ", "within the ", n_indices, " indices: offset ", i,
                      " is ", at[i], ".");
  }
  // On a GPU designs do not look, so neither do we: what no bag holds is not looked up.
  if (call.weights[0].is_cuda()) return offsets;
  TORCH_CHECK_VALUE(at[0] == 0, "embedding_bags takes offsets that begin at 0; the first is ", at[0], ".");
  TORCH_CHECK_VALUE(at[last] == n_indices, "embedding_bags takes offsets that end at the number of indices, ",
                    n_indices, "; the last is ", at[last],
                    ". Those of nn.EmbeddingBag without include_last_offset lack it: append it.");
  return offsets;
}

// Table by table through PyTorch's own operators. Waits for the GPU once: where each table's indices begin decides
// shapes.
Tensor call_stock(const TablesCall& call, const char* why) {
  calls().count_stock(why);
  const int64_t n_bags = call.n_bags();
  const Tensor& first = call.weights[0];
  const bool on_gpu = first.is_cuda();
  TORCH_CHECK(!on_gpu || !Driver::get().is_capturing(current_stream(first.device())), "embedding_bags cannot be ",
              "captured in a CUDA graph here, since ", why,
              ", and PyTorch's own kernels need the offsets on the host.");
  const Tensor host_offsets = checked_offsets(call);
  const int64_t* starts = host_offsets.const_data_ptr<int64_t>();
  Tensor output = at::empty({n_bags, call.columns}, first.options().dtype(call.output_type));
  if (n_bags == 0) return output;
  int64_t column = 0;
  // The rows as they are, where PyTorch's kernel both reads and writes this type, per-sample weights included.
  const bool weighted_alike = !call.sample_weights.has_value() || call.row_type == at::kFloat;
  const bool directly = !call.quantised() && call.row_type == call.output_type && weighted_alike;
  for (int64_t table = 0; table < call.n_tables(); table++) {
    const int64_t begin = starts[table * n_bags], count = starts[(table + 1) * n_bags] - begin;
    const Tensor indices = call.indices.narrow(0, begin, count);
    const Tensor offsets = call.offsets.narrow(0, table * n_bags, n_bags + 1).sub(begin);
    const std::size_t which = static_cast<std::size_t>(table);
    if (!on_gpu) check_row_numbers(indices, call.weights[which].size(0), table);
    const Tensor rows = directly ? call.weights[which] : gathered(call, which, indices);
    MaybeTensor scales;
    if (call.sample_weights.has_value()) scales = call.sample_weights->narrow(0, begin, count);
    const Tensor sums =
        std::get<0>(at::_embedding_bag_forward_only(rows, directly ? indices : at::arange(count, indices.options()),
                                                    offsets, false, call.mode, false, scales, true, -1));
    output.narrow(1, column, call.dim_of(which)).copy_(sums);
    column += call.dim_of(which);
  }
  return output;
}

Tensor call_design(const Design& design, const TablesCall& call) {
  const Tensor& first = call.weights[0];
  const c10::DeviceGuard guard(first.device());
  const int device = first.get_device();
  const int64_t n_bags = call.n_bags();
  Tensor output = at::empty({n_bags, call.columns}, first.options().dtype(call.output_type));
  const Driver& driver = Driver::get();
  driver.ensure_context(device);
  const LoadedDesign& loaded = design.on(device);
  const std::vector<TableRows> tables = descriptors(call);
  const Choice choice = choose(design, loaded, call, kind_of(call, tables, output));
  TORCH_CHECK(choice.kernel != nullptr, "Design ", design.name, " has no lookup of ", call.row_type, " rows into ",
              call.output_type, ", although its manifest says so. Compile it again.");
  if (n_bags > 0) {
    const CUstream stream = current_stream(first.device());
    TablesArgs args = arguments(call, output);
    args.tickets = tickets().of(driver, device, stream);
    args.crowded_clocks = loaded.gpu.crowded_clocks;
    // As many tables in each launch as in every other, or one more.
    const int64_t n_launches = ceil_div(call.n_tables(), choice.tables_at_once),
                  each = ceil_div(call.n_tables(), n_launches);
    table_sets().with(device, tables, stream, [&](const TableRows* on_device) {
      for (int64_t at = 0; at < call.n_tables(); at += each) {
        args.tables = on_device + at;
        args.first_number = static_cast<int>(at);
        args.n_tables = std::min(each, call.n_tables() - at);
        launch(*choice.kernel, first.device(), grid(choice, call, args.n_tables, loaded.gpu.multiprocessors),
               choice.shape->threads_x, args);
      }
    });
  }
  calls().count(*choice.kernel->kernel);
  return output;
}

// Rows are written as their own type or float32, quantised ones as float16 or float32: that is what designs are
// compiled for.
bool is_compiled_output(const TablesCall& call) {
  return call.output_type == at::kFloat || call.output_type == (call.quantised() ? at::kHalf : call.row_type);
}

Tensor look_up(const GivenTables& given, const Lookup& lookup) {
  const TablesCall call = checked(given, lookup);
  const Design* design = applied().all_tables.load(std::memory_order_acquire);
  const char* why = nullptr;
  if (!given.weights[0].is_cuda()) {
    why = "the tables are not on a CUDA device";
  } else if (design == nullptr) {
    why = "no design that takes all tables is applied";
  } else if (!is_compiled_output(call)) {
    why = "the output's dtype is not the design's";
  } else {
    why = refusal(*design, call);
  }
  return why == nullptr ? call_design(*design, call) : call_stock(call, why);
}

// Shapes alone, for torch.compile and torch.export. A tensor on the meta device among others that are not brings every
// call here, so all must be: otherwise the result would be memory that nobody wrote.
Tensor shape_of_lookup(const GivenTables& given, const Lookup& lookup) {
  const at::ScalarType type = output_type_of(lookup, row_type_of(given));
  const auto check = [](const Tensor& tensor) {
    TORCH_CHECK_VALUE(tensor.is_meta(), "embedding_bags got a tensor on ", tensor.device(),
                      " and another on meta, which ",
                      "holds no values; put tables, indices and offsets on one device.");
  };
  for (const at::TensorList list : {given.weights, given.scales}) {
    for (const Tensor& tensor : list) check(tensor);
  }
  check(lookup.indices);
  check(lookup.offsets);
  if (lookup.sample_weights.has_value() && lookup.sample_weights->defined()) check(*lookup.sample_weights);
  const Tensor& first = given.weights[0];
  const c10::SymInt n_tables = static_cast<int64_t>(given.weights.size());
  c10::SymInt columns = 0;
  for (const Tensor& weight : given.weights)
    columns += given.row_type.empty() ? weight.sym_size(1) : c10::SymInt(given.dim);
  return at::empty_symint({(lookup.offsets.sym_numel() - 1) / n_tables, columns}, first.options().dtype(type));
}

// The two operators, whose kernels take the same. Two, since a package of AOTInductor cannot hold an empty list of
// tensors, such as the scales of float tables would be.
using Kernel = Tensor(const GivenTables&, const Lookup&);
using MaybeType = std::optional<at::ScalarType>;
constexpr const char* kOfFloats = "embedding_harness::embedding_bags";
constexpr const char* kOfQuantised = "embedding_harness::quantised_embedding_bags";

template <Kernel* kernel>
Tensor of_floats(at::TensorList weights, const Tensor& indices, const Tensor& offsets, int64_t mode,
                 const MaybeTensor& sample_weights, MaybeType output_type) {
  return kernel({weights}, {indices, offsets, mode, sample_weights, output_type});
}

template <Kernel* kernel>
Tensor of_quantised(at::TensorList data, at::TensorList scale_bias, std::string row_type, int64_t dim,
                    const Tensor& indices, const Tensor& offsets, int64_t mode, const MaybeTensor& sample_weights,
                    MaybeType output_type) {
  TORCH_CHECK_VALUE(!row_type.empty(), "quantised_embedding_bags needs the type of rows, int8 or int4.");
  return kernel({data, scale_bias, std::move(row_type), dim}, {indices, offsets, mode, sample_weights, output_type});
}

template <typename Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// The operator's kernel below autograd.
Tensor below_autograd(const GivenTables& given, const Lookup& lookup) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const auto& [indices, offsets, mode, sample_weights, output_type] = lookup;
  if (given.row_type.empty()) {
    static const auto op = find<decltype(of_floats<look_up>)>(kOfFloats);
    return op.call(given.weights, indices, offsets, mode, sample_weights, output_type);
  }
  static const auto op = find<decltype(of_quantised<look_up>)>(kOfQuantised);
  return op.call(given.weights, given.scales, given.row_type, given.dim, indices, offsets, mode, sample_weights,
                 output_type);
}

// A lookup in whose place a backward pass finds an error.
struct WithoutGradient : torch::autograd::Function<WithoutGradient> {
  // `wants`: what the gradient would be of.
  static Tensor forward(torch::autograd::AutogradContext*, const Tensor& /*wants*/, const GivenTables& given,
                        const Lookup& lookup) {
    return below_autograd(given, lookup);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*, torch::autograd::variable_list) {
    TORCH_CHECK(false,
                "embedding_bags is for inference and has no gradient: train its tables with torch.nn.EmbeddingBag, "
                "or call it under torch.no_grad() where none of them is to be trained.");
  }
};

// A backward pass must not leave out, without a word, tables or sample weights that require a gradient.
Tensor without_gradient(const GivenTables& given, const Lookup& lookup) {
  const auto sample_weights = lookup.sample_weights.value_or(Tensor());
  const auto dual = [](const Tensor& tensor) { return tensor._fw_grad(0).defined(); };
  TORCH_CHECK(std::none_of(given.weights.begin(), given.weights.end(), dual) &&
                  !(sample_weights.defined() && dual(sample_weights)),
              "embedding_bags is for inference and has no forward-mode gradient.");
  if (at::GradMode::is_enabled()) {
    const auto wants = [](const Tensor& tensor) { return tensor.requires_grad(); };
    const auto table = std::find_if(given.weights.begin(), given.weights.end(), wants);
    if (table != given.weights.end()) return WithoutGradient::apply(*table, given, lookup);
    if (sample_weights.defined() && wants(sample_weights)) return WithoutGradient::apply(sample_weights, given, lookup);
  }
  return below_autograd(given, lookup);
}

void apply_tables(std::string identity) {
  const Design& design = defined(identity);
  calls().start_again();
  applied().all_tables.store(&design, std::memory_order_release);
}

// What a lookup of float tables would come to, as JSON: {"refusal": ...} or what its kernel would be told.
std::string plan_tables(at::TensorList weights, const Tensor& indices, const Tensor& offsets, int64_t mode) {
  const Design* design = applied().all_tables.load(std::memory_order_acquire);
  TORCH_CHECK(design != nullptr, "No design that takes all tables is applied.");
  const TablesCall call = checked({weights}, {indices, offsets, mode, {}, {}});
  std::ostringstream json;
  if (const char* why = refusal(*design, call)) {
    json << "{\"refusal\": \"" << why << "\"}";
    return json.str();
  }
  const std::vector<TableRows> tables = descriptors(call);
  const Tensor output = at::empty({0, call.columns}, call.weights[0].options().dtype(call.output_type));
  json << "{\"n_indices\": " << call.indices.numel() << ", \"n_bags\": " << call.n_bags()
       << ", \"n_tables\": " << call.n_tables() << ", \"dim\": " << call.dim << ", \"rows\": " << tables[0].rows
       << ", \"row_stride_bytes\": " << tables[0].row_stride_bytes
       << ", \"fast\": " << (kind_of(call, tables, output).fast ? "true" : "false") << "}";
  return json.str();
}

template <Kernel* kernel>
void implement(torch::Library& library) {
  library.impl(kOfFloats, &of_floats<kernel>);
  library.impl(kOfQuantised, &of_quantised<kernel>);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(embedding_harness, library) {
  library.def(
      "embedding_bags(Tensor[] weights, Tensor indices, Tensor offsets, int mode, Tensor? sample_weights, "
      "ScalarType? output_type) -> Tensor");
  library.def(
      "quantised_embedding_bags(Tensor[] data, Tensor[] scale_bias, str row_type, int dim, Tensor indices, "
      "Tensor offsets, int mode, Tensor? sample_weights, ScalarType? output_type) -> Tensor");
  library.def("apply_tables(str identity) -> ()", &apply_tables);
  library.def("plan_tables(Tensor[] weights, Tensor indices, Tensor offsets, int mode) -> str", &plan_tables);
}
TORCH_LIBRARY_IMPL(embedding_harness, CPU, library) { implement<look_up>(library); }
TORCH_LIBRARY_IMPL(embedding_harness, CUDA, library) { implement<look_up>(library); }
TORCH_LIBRARY_IMPL(embedding_harness, Meta, library) { implement<shape_of_lookup>(library); }
TORCH_LIBRARY_IMPL(embedding_harness, Autograd, library) { implement<without_gradient>(library); }

}  // namespace embedding_harness
