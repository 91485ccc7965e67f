// embedding_bags: the bags of many tables in one call, for inference. A design that takes all tables computes it in one
// launch; what none computes, on CUDA or the CPU, PyTorch's own operators do, table by table.

#include <optional>
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
#include <torch/library.h>

#include "applied.h"
#include "calls.h"
#include "design.h"
#include "driver.h"
#include "table_sets.h"
#include "tables.h"

namespace embedding_harness {
namespace {

using at::Tensor;
using MaybeTensor = std::optional<Tensor>;

TableSets& table_sets() {
  static TableSets* const only = new TableSets();  // never freed: at the end of the process CUDA may be gone
  return *only;
}

bool is_real(at::ScalarType type) { return type == at::kFloat || type == at::kHalf || type == at::kBFloat16; }

// "float32", or of quantised rows "int8" or "int4".
at::ScalarType parsed_row_type(const std::string& row_type, at::TensorList weights) {
  if (row_type == "int8") return at::kByte;
  if (row_type == "int4") return kFourBits;
  TORCH_CHECK_VALUE(row_type.empty(), "embedding_bags knows rows of int8 and int4, not of ", row_type, ".");
  return weights[0].scalar_type();
}

void check_tables(const TablesCall& call) {
  const Tensor& first = call.weights[0];
  const int64_t width = call.row_type == kFourBits ? ceil_div(call.dim, 2) : call.dim;
  TORCH_CHECK_VALUE(call.dim > 0, "embedding_bags needs tables with columns.");
  TORCH_CHECK_VALUE(!call.quantised() || call.scales.size() == call.weights.size(), "embedding_bags got ",
                    call.weights.size(), " quantised tables and scales of ", call.scales.size(), ".");
  TORCH_CHECK_TYPE(call.quantised() || is_real(call.row_type), "embedding_bags takes tables of float32, float16 or ",
                   "bfloat16, or quantised ones; got ", call.row_type, ".");
  for (std::size_t i = 0; i < call.weights.size(); i++) {
    const Tensor& weight = call.weights[i];
    TORCH_CHECK_VALUE(weight.layout() == at::kStrided && weight.dim() == 2 && weight.size(1) == width,
                      "embedding_bags takes tables of one width: table ", i, " has the shape ", weight.sizes(),
                      ", and rows of ", width, " are expected.");
    TORCH_CHECK_TYPE(weight.scalar_type() == (call.quantised() ? at::kByte : call.row_type),
                     "embedding_bags takes tables of one dtype: table ", i, " is ", weight.scalar_type(), ".");
    TORCH_CHECK_VALUE(weight.device() == first.device(), "embedding_bags takes tables on one device: table ", i,
                      " is on ", weight.device(), ", table 0 on ", first.device(), ".");
    TORCH_CHECK_VALUE(width == 1 || weight.stride(1) == 1, "embedding_bags takes tables whose rows are contiguous: in ",
                      "table ", i, " columns are ", weight.stride(1), " elements apart.");
    if (!call.quantised()) continue;
    const Tensor& scale = call.scales[i];
    TORCH_CHECK_VALUE(scale.scalar_type() == at::kHalf && scale.dim() == 2 && scale.size(0) == weight.size(0) &&
                          scale.size(1) == 2 && scale.is_contiguous() && scale.device() == weight.device(),
                      "embedding_bags takes scale and bias as float16 [rows, 2], contiguous, beside their table: those ",
                      "of table ", i, " are not.");
  }
}

// The call, or an error that says what is wrong with it.
TablesCall checked(at::TensorList weights, at::TensorList scales, const std::string& row_type, int64_t dim,
                   const Tensor& indices, const Tensor& offsets, int64_t mode, const MaybeTensor& sample_weights,
                   std::optional<at::ScalarType> output_type) {
  TORCH_CHECK_VALUE(!weights.empty(), "embedding_bags needs at least one table.");
  TablesCall call{weights, scales, parsed_row_type(row_type, weights), dim, indices, offsets, mode, std::nullopt, {}};
  check_tables(call);
  call.output_type = output_type.value_or(call.quantised() ? at::kHalf : call.row_type);
  TORCH_CHECK_TYPE(is_real(call.output_type), "embedding_bags writes float32, float16 or bfloat16, not ",
                   call.output_type, ".");
  TORCH_CHECK_VALUE(mode >= LOOKUP_SUM && mode <= LOOKUP_MAX, "embedding_bags knows the modes sum, mean and max.");
  const int64_t n_tables = call.n_tables();
  TORCH_CHECK_VALUE(indices.dim() == 1 && offsets.dim() == 1, "embedding_bags takes one-dimensional indices and ",
                    "offsets; got ", indices.sizes(), " and ", offsets.sizes(), ".");
  TORCH_CHECK_TYPE(is_index_type(indices.scalar_type()) && is_index_type(offsets.scalar_type()),
                   "embedding_bags takes indices and offsets of int32 or int64; got ", indices.scalar_type(), " and ",
                   offsets.scalar_type(), ".");
  TORCH_CHECK_VALUE(offsets.numel() % n_tables == (n_tables == 1 ? 0 : 1) && offsets.numel() > 0,
                    "embedding_bags takes tables * bags + 1 offsets; ", offsets.numel(), " are not that for ", n_tables,
                    " tables.");
  for (const Tensor* given : {&indices, &offsets}) {
    TORCH_CHECK_VALUE(given->device() == weights[0].device(), "embedding_bags takes indices and offsets where the ",
                      "tables are, on ", weights[0].device(), "; got ", given->device(), ".");
  }
  // PyTorch's rule where indices and offsets differ: both become int64.
  if (indices.scalar_type() != offsets.scalar_type()) {
    call.indices = indices.to(at::kLong);
    call.offsets = offsets.to(at::kLong);
  }
  call.indices = call.indices.contiguous();
  call.offsets = call.offsets.contiguous();
  if (sample_weights.has_value() && sample_weights->defined()) {
    TORCH_CHECK_VALUE(mode == LOOKUP_SUM, "embedding_bags takes per-sample weights in the mode sum alone.");
    TORCH_CHECK_VALUE(sample_weights->sizes() == indices.sizes() && sample_weights->device() == indices.device() &&
                          is_real(sample_weights->scalar_type()),
                      "embedding_bags takes one per-sample weight, a floating-point number, beside each index.");
    call.sample_weights = sample_weights->to(at::kFloat).contiguous();
  }
  return call;
}

// The looked-up rows of one table as float32 [n, dim].
Tensor gathered(const TablesCall& call, std::size_t table, const Tensor& indices) {
  const Tensor rows = call.weights[table].index_select(0, indices);
  if (!call.quantised()) return rows.to(at::kFloat);
  const Tensor values =
      call.row_type == kFourBits
          ? at::stack({rows.bitwise_and(15), rows.bitwise_right_shift(4)}, 2).flatten(1).narrow(1, 0, call.dim)
          : rows;
  const Tensor pairs = call.scales[table].index_select(0, indices).to(at::kFloat);
  return values.to(at::kFloat).mul(pairs.narrow(1, 0, 1)).add(pairs.narrow(1, 1, 1));
}

// PyTorch's own errors would not say of which table. On a GPU its kernels assert.
void check_row_numbers(const Tensor& indices, int64_t rows, int64_t table) {
  if (indices.numel() == 0) return;
  const auto [least, most] = at::aminmax(indices);
  const int64_t lowest = least.item().toLong(), wrong = lowest < 0 ? lowest : most.item().toLong();
  TORCH_CHECK_INDEX(wrong >= 0 && wrong < rows, "embedding_bags got row number ", wrong, " for table ", table, ", which has ",
                    rows, " rows.");
}

// Table by table through PyTorch's own operators. Waits for the GPU once: where each table's indices begin decides
// shapes.
Tensor call_stock(const TablesCall& call, const char* why) {
  calls().count_stock(why);
  const int64_t n_bags = call.n_bags();
  const Tensor& first = call.weights[0];
  const bool on_gpu = first.is_cuda();
  Tensor output = at::empty({n_bags, call.n_tables() * call.dim}, first.options().dtype(call.output_type));
  if (n_bags == 0) return output;
  TORCH_CHECK(!on_gpu || !Driver::get().is_capturing(current_stream(first.device())), "embedding_bags cannot be ",
              "captured in a CUDA graph here, since ", why, ", and PyTorch's own kernels need the offsets on the host.");
  const Tensor host_offsets = call.offsets.to(at::kCPU, at::kLong);
  const int64_t* starts = host_offsets.const_data_ptr<int64_t>();
  const int64_t n_indices = call.indices.numel();
  for (int64_t i = 0; i < host_offsets.numel(); i++) {
    TORCH_CHECK_VALUE(starts[i] >= (i == 0 ? 0 : starts[i - 1]) && starts[i] <= n_indices,
                      "embedding_bags takes offsets that ascend within the ", n_indices, " indices: offset ", i, " is ",
                      starts[i], ".");
  }
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
    output.narrow(1, table * call.dim, call.dim).copy_(sums);
  }
  return output;
}

Tensor call_design(const Design& design, const TablesCall& call) {
  const Tensor& first = call.weights[0];
  const c10::DeviceGuard guard(first.device());
  const int device = first.get_device();
  const int64_t n_bags = call.n_bags();
  Tensor output = at::empty({n_bags, call.n_tables() * call.dim}, first.options().dtype(call.output_type));
  Driver::get().ensure_context(device);
  const LoadedDesign& loaded = design.on(device);
  const std::vector<TableRows> tables = descriptors(call);
  const Choice choice = choose(design, loaded, call, tables, is_plain(call, tables, output));
  TORCH_CHECK(choice.kernel != nullptr, "Design ", design.name, " has no lookup of ", call.row_type, " rows into ",
              call.output_type, ", although its manifest says so. Compile it again.");
  if (n_bags > 0) {
    TablesArgs args = arguments(call, output);
    const Grid blocks = grid(choice, call, loaded.multiprocessors);
    table_sets().with(device, tables, current_stream(first.device()), [&](const TableRows* on_device) {
      args.tables = on_device;
      launch(*choice.kernel, first.device(), blocks, choice.shape->threads_x, args);
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

Tensor embedding_bags(at::TensorList weights, at::TensorList scales, std::string row_type, int64_t dim,
                      const Tensor& indices, const Tensor& offsets, int64_t mode, const MaybeTensor& sample_weights,
                      std::optional<at::ScalarType> output_type) {
  const TablesCall call =
      checked(weights, scales, row_type, dim, indices, offsets, mode, sample_weights, output_type);
  const Design* design = applied().all_tables.load(std::memory_order_acquire);
  const char* why = nullptr;
  if (!weights[0].is_cuda()) {
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

// Shapes alone, for torch.compile.
Tensor embedding_bags_meta(at::TensorList weights, at::TensorList, std::string row_type, int64_t dim, const Tensor&,
                           const Tensor& offsets, int64_t, const MaybeTensor&,
                           std::optional<at::ScalarType> output_type) {
  TORCH_CHECK_VALUE(!weights.empty(), "embedding_bags needs at least one table.");
  const auto n_tables = static_cast<int64_t>(weights.size());
  const at::ScalarType usual = row_type.empty() ? weights[0].scalar_type() : at::kHalf;
  const c10::SymInt n_bags = (offsets.sym_numel() - 1) / n_tables;
  return at::empty_symint({n_bags, n_tables * dim}, weights[0].options().dtype(output_type.value_or(usual)));
}

// Refuses what would silently lack a gradient; otherwise goes on to the kernels above.
Tensor embedding_bags_autograd(at::TensorList weights, at::TensorList scales, std::string row_type, int64_t dim,
                               const Tensor& indices, const Tensor& offsets, int64_t mode,
                               const MaybeTensor& sample_weights, std::optional<at::ScalarType> output_type) {
  if (at::GradMode::is_enabled()) {
    for (std::size_t i = 0; i < weights.size(); i++) {
      TORCH_CHECK(!weights[i].requires_grad(), "embedding_bags is for inference, and table ", i, " requires a gradient. ",
                  "Call it under torch.inference_mode() or torch.no_grad(), or train with torch.nn.EmbeddingBag.");
    }
    TORCH_CHECK(!sample_weights.has_value() || !sample_weights->requires_grad(), "embedding_bags is for inference, and ",
                "the per-sample weights require a gradient.");
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("embedding_harness::embedding_bags", "")
                             .typed<decltype(embedding_bags)>();
  return op.call(weights, scales, std::move(row_type), dim, indices, offsets, mode, sample_weights, output_type);
}

void apply_tables(std::string identity) {
  const Design& design = defined(identity);
  calls().start_again();
  applied().all_tables.store(&design, std::memory_order_release);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(embedding_harness, library) {
  library.def(
      "embedding_bags(Tensor[] weights, Tensor[] scales, str row_type, int dim, Tensor indices, Tensor offsets, "
      "int mode, Tensor? sample_weights, ScalarType? output_type) -> Tensor");
  library.def("apply_tables(str identity) -> ()", &apply_tables);
}
TORCH_LIBRARY_IMPL(embedding_harness, CPU, library) { library.impl("embedding_bags", &embedding_bags); }
TORCH_LIBRARY_IMPL(embedding_harness, CUDA, library) { library.impl("embedding_bags", &embedding_bags); }
TORCH_LIBRARY_IMPL(embedding_harness, Meta, library) { library.impl("embedding_bags", &embedding_bags_meta); }
TORCH_LIBRARY_IMPL(embedding_harness, Autograd, library) { library.impl("embedding_bags", &embedding_bags_autograd); }

}  // namespace embedding_harness
