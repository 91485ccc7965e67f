#include "tables_call.h"

#include <algorithm>

#include <c10/util/Exception.h>

#include "tables_args.h"

namespace embedding_harness {
namespace {

using at::Tensor;

bool is_real(at::ScalarType type) { return type == at::kFloat || type == at::kHalf || type == at::kBFloat16; }

// Also finds out how wide they are.
void check_tables(TablesCall& call) {
  const Tensor& first = call.weights[0];
  // Quantised rows may be given with what is left of their last 16 bytes, which belongs to no column.
  const int64_t width = call.row_bytes(call.dim), padded = ceil_div(width, 16) * 16;
  TORCH_CHECK_VALUE(!call.quantised() || call.dim > 0, "embedding_bags needs tables with columns.");
  TORCH_CHECK_VALUE(!call.quantised() || call.scales.size() == call.weights.size(), "embedding_bags got ",
                    call.weights.size(), " quantised tables and scales of ", call.scales.size(), ".");
  TORCH_CHECK_TYPE(call.quantised() || is_real(call.row_type), "embedding_bags takes tables of float32, float16 or ",
                   "bfloat16, or quantised ones; got ", call.row_type, ".");
  for (std::size_t i = 0; i < call.weights.size(); i++) {
    const Tensor& weight = call.weights[i];
    TORCH_CHECK_VALUE(weight.layout() == at::kStrided && weight.dim() == 2 && weight.size(1) > 0,
                      "embedding_bags takes ", "tables [rows, columns]: table ", i, " has the shape ", weight.sizes(),
                      ".");
    TORCH_CHECK_VALUE(!call.quantised() || weight.size(1) == width || weight.size(1) == padded, "embedding_bags takes ",
                      "quantised tables of one width: table ", i, " has the shape ", weight.sizes(), ", and rows of ",
                      width, " bytes are expected.");
    TORCH_CHECK_TYPE(weight.scalar_type() == (call.quantised() ? at::kByte : call.row_type),
                     "embedding_bags takes tables of one dtype: table ", i, " is ", weight.scalar_type(), ".");
    TORCH_CHECK_VALUE(weight.device() == first.device(), "embedding_bags takes tables on one device: table ", i,
                      " is on ", weight.device(), ", table 0 on ", first.device(), ".");
    TORCH_CHECK_VALUE(weight.size(1) == 1 || weight.stride(1) == 1, "embedding_bags takes tables whose rows are ",
                      "contiguous: in table ", i, " columns are ", weight.stride(1), " elements apart.");
    call.columns += call.dim_of(i);
    if (!call.quantised()) {
      call.dim = std::max(call.dim, weight.size(1));
      continue;
    }
    const Tensor& scale = call.scales[i];
    const bool is_half = scale.scalar_type() == at::kHalf || scale.scalar_type() == at::kShort;
    TORCH_CHECK_VALUE(
        is_half && scale.dim() == 2 && scale.size(0) == weight.size(0) && scale.size(1) == 2 && scale.is_contiguous() &&
            scale.device() == weight.device(),
        "embedding_bags takes scale and bias as float16 [rows, 2], contiguous, beside their table: those ", "of table ",
        i, " are not.");
  }
}

}  // namespace

at::ScalarType row_type_of(const GivenTables& given) {
  TORCH_CHECK_VALUE(!given.weights.empty(), "embedding_bags needs at least one table.");
  if (given.row_type == "int8") return at::kByte;
  if (given.row_type == "int4") return kFourBits;
  TORCH_CHECK_VALUE(given.row_type.empty(), "embedding_bags knows rows of int8 and int4, not of ", given.row_type, ".");
  return given.weights[0].scalar_type();
}

at::ScalarType output_type_of(const Lookup& lookup, at::ScalarType row_type) {
  const bool quantised = row_type == at::kByte || row_type == kFourBits;
  const at::ScalarType type = lookup.output_type.value_or(quantised ? at::kHalf : row_type);
  TORCH_CHECK_TYPE(is_real(type), "embedding_bags writes float32, float16 or bfloat16, not ", type, ".");
  return type;
}

TablesCall checked(const GivenTables& given, const Lookup& lookup) {
  const auto& [indices, offsets, mode, sample_weights, output_type] = lookup;
  const at::ScalarType row_type = row_type_of(given);
  const Tensor& first = given.weights[0];
  TablesCall call{given.weights, given.scales, row_type, given.row_type.empty() ? 0 : given.dim, 0, indices, offsets,
                  mode,          std::nullopt, {}};
  check_tables(call);
  call.output_type = output_type_of(lookup, row_type);
  TORCH_CHECK_VALUE(mode >= LOOKUP_SUM && mode <= LOOKUP_MAX, "embedding_bags knows the modes sum, mean and max.");
  const int64_t n_tables = call.n_tables();
  TORCH_CHECK_VALUE(indices.dim() == 1 && offsets.dim() == 1, "embedding_bags takes one-dimensional indices and ",
                    "offsets; got ", indices.sizes(), " and ", offsets.sizes(), ".");
  TORCH_CHECK_TYPE(is_index_type(indices.scalar_type()) && is_index_type(offsets.scalar_type()),
                   "embedding_bags takes indices and offsets of int32 or int64; got ", indices.scalar_type(), " and ",
                   offsets.scalar_type(), ".");
  TORCH_CHECK_VALUE(offsets.numel() > 0 && (offsets.numel() - 1) % n_tables == 0,
                    "embedding_bags takes tables * bags + 1 ", "offsets; ", offsets.numel(), " are not that for ",
                    n_tables, " tables.");
  for (const Tensor* tensor : {&indices, &offsets}) {
    TORCH_CHECK_VALUE(tensor->device() == first.device(), "embedding_bags takes indices and offsets where the ",
                      "tables are, on ", first.device(), "; got ", tensor->device(), ".");
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

}  // namespace embedding_harness
