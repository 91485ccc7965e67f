// Decides, for one call of embedding_bags, whether the design computes it, and what its kernel is told if so. Pure, as
// plan.h is: looks at shapes, strides and types, touches no device.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "design.h"
#include "plan.h"
#include "tables_args.h"
#include "tables_call.h"

namespace embedding_harness {

// Whether every row begins where kernels read 16 bytes at a time, and every pair of scale and bias as one word.
inline bool quantised_rows_are_aligned(const TablesCall& call) {
  for (std::size_t i = 0; i < call.weights.size(); i++) {
    const at::Tensor& weight = call.weights[i];
    if (!is_aligned(weight.const_data_ptr()) || (weight.size(0) > 1 && !is_aligned(weight.stride(0)))) return false;
    if (reinterpret_cast<std::uintptr_t>(call.scales[i].const_data_ptr()) % 4 != 0) return false;
  }
  return true;
}

// Why the call goes to PyTorch's own kernels, table by table; null where the design takes it.
inline const char* refusal(const Design& design, const TablesCall& call) {
  const Supports& supports = design.supports;
  if (!contains(supports.dtypes, call.row_type)) return "the tables' dtype is not the design's";
  if (!contains(supports.index_dtypes, call.indices.scalar_type())) return "the indices' dtype is not the design's";
  const bool supported = call.mode == LOOKUP_SUM    ? supports.modes.sum
                         : call.mode == LOOKUP_MEAN ? supports.modes.mean
                                                    : supports.modes.max;
  if (!supported) return "the mode is not the design's";
  if (call.sample_weights.has_value() && !supports.weighted) return "the design takes no per-sample weights";
  if (supports.max_dim != 0 && call.dim > supports.max_dim) return "the tables have more columns than the design takes";
  for (std::size_t i = 0; i < call.weights.size(); i++) {
    if (call.dim_of(i) % supports.dim_multiple != 0) return "the design does not take this number of columns";
  }
  if (call.quantised() && !quantised_rows_are_aligned(call)) {
    return "the rows of a quantised table do not begin at multiples of 16 bytes";
  }
  for (const at::Tensor& weight : call.weights) {
    if (const char* why = too_large(weight, call.dim, call.row_bytes(call.dim))) return why;
  }
  if (call.columns > kMostCounted) return "the output has some 2^31 columns or more";
  if (const char* why = too_many(call.indices.numel(), call.n_bags())) return why;
  return is_launchable(design.shape, call.n_bags(), call.dim) ? nullptr : "more bags than one launch has room for";
}

inline std::vector<TableRows> descriptors(const TablesCall& call) {
  std::vector<TableRows> tables;
  tables.reserve(call.weights.size());
  int column = 0;
  for (std::size_t i = 0; i < call.weights.size(); i++) {
    const at::Tensor& weight = call.weights[i];
    const auto address = [](const at::Tensor& tensor) {
      return reinterpret_cast<lookup_int64>(tensor.const_data_ptr());
    };
    const int dim = static_cast<int>(call.dim_of(i));
    tables.push_back({address(weight), call.quantised() ? address(call.scales[i]) : 0, weight.size(0),
                      weight.stride(0) * static_cast<int64_t>(weight.element_size()), column, dim,
                      static_cast<int>(call.mode), static_cast<int>(i)});
    column += dim;
  }
  return tables;
}

// The kernel's arguments for all tables, but `tables` and `tickets`, which lie on the device.
inline TablesArgs arguments(const TablesCall& call, const at::Tensor& output) {
  TablesArgs args{};
  args.indices = call.indices.const_data_ptr();
  args.offsets = call.offsets.const_data_ptr();
  if (call.sample_weights.has_value()) args.sample_weights = call.sample_weights->const_data_ptr<float>();
  args.output = output.mutable_data_ptr();
  args.n_indices = call.indices.numel();
  args.n_bags = call.n_bags();
  args.n_tables = call.n_tables();
  args.dim = call.dim;
  args.output_stride = output.stride(0);
  args.rows_per_bag = static_cast<float>(call.indices.numel()) /
                      static_cast<float>(std::max<int64_t>(call.n_bags() * call.n_tables(), 1));
  return args;
}

// What a call is, beyond what `refusal` knows: see tables_args.h.
struct Kind {
  bool fast;   // special kernels may be told of it
  bool alike;  // tables are alike and lie in whole vectors, so that `generic` = false serves it
};

inline Kind kind_of(const TablesCall& call, const std::vector<TableRows>& tables, const at::Tensor& output) {
  if (call.sample_weights.has_value() || call.mode == LOOKUP_MAX) return {false, false};
  // Kernels count the bags of all tables in 32 bits, once for every round of columns where they take some at a time.
  constexpr int64_t columns_of_round = 128;
  bool fast = call.n_bags() * call.n_tables() * ceil_div(call.dim, columns_of_round) <= kMostCounted;
  bool alike = is_aligned(output.const_data_ptr());
  const int64_t narrow = call.quantised() ? 16 : 4;  // bytes of the narrowest vectors
  const int64_t item_bytes = static_cast<int64_t>(c10::elementSize(call.output_type));
  for (const TableRows& table : tables) {
    const bool counted = table.rows >= 1 && table.rows < 0x7fffffffLL && table.row_stride_bytes <= kMostApart;
    const int64_t bytes = call.quantised() ? 0 : call.row_bytes(table.dim);
    fast =
        fast && counted && table.weights % narrow == 0 && table.row_stride_bytes % narrow == 0 && bytes % narrow == 0;
    alike = alike && table.row_stride_bytes <= kMostApart && table.dim == tables[0].dim && is_aligned(table.weights) &&
            is_aligned(table.row_stride_bytes) && is_aligned(call.row_bytes(table.dim)) &&
            is_aligned(table.dim * item_bytes);
  }
  return {fast, alike};
}

// Whether a number is at least the first and less than the second, where 0 is no limit; all times `scale`.
inline bool is_within(int64_t number, const std::array<int64_t, 2>& limits, int64_t scale) {
  return number >= limits[0] * scale && (limits[1] == 0 || number < limits[1] * scale);
}

// Whether a special kernel is made for calls of this shape.
inline bool is_for(const Special& special, const Kind& kind, const TablesCall& call, int64_t multiprocessors) {
  const int64_t n_bags = call.n_bags() * call.n_tables();
  if (!kind.fast || special.alike.value_or(kind.alike) != kind.alike) return false;
  return is_within(call.indices.numel(), special.rows_per_bag, n_bags) &&
         is_within(call.n_bags(), special.bags_per_multiprocessor, multiprocessors) &&
         is_within(call.dim, special.columns, 1);
}

// A kernel and how it is launched.
struct Choice {
  const LoadedKernel* kernel;
  const LaunchShape* shape;
  int64_t tables_at_once;  // of a launch, at most
};

// The first special kernel that is made for a fast call's shape and type, otherwise the one for any call; its kernel is
// null where there is none.
inline Choice choose(const Design& design, const LoadedDesign& loaded, const TablesCall& call, const Kind& kind) {
  const auto allowed = [&](const LaunchShape& shape, int64_t asked) {
    const int64_t most = strides(shape) ? call.n_tables() : kMaxRowsOfBlocks;
    return asked > 0 ? std::min(asked, most) : most;
  };
  Instance wanted{"", call.row_type, call.indices.scalar_type(), call.output_type, false};
  for (const Special& special : design.specials) {
    if (!is_for(special, kind, call, loaded.gpu.multiprocessors)) continue;
    wanted.function = special.function;
    if (const LoadedKernel* kernel = loaded.find(wanted))
      return {kernel, &special.shape, allowed(special.shape, special.tables_at_once)};
  }
  wanted.function = "lookup_tables";
  wanted.generic = !kind.alike;
  return {loaded.find(wanted), &design.shape, allowed(design.shape, 0)};
}

inline Grid grid(const Choice& choice, const TablesCall& call, int64_t n_tables, int64_t multiprocessors) {
  const LaunchShape& shape = *choice.shape;
  if (shape.blocks > 0) return {shape.blocks};
  const int64_t of_one_table = covering_blocks(shape, call.n_bags(), call.dim);
  if (shape.blocks_per_sm > 0) return {std::min(of_one_table * n_tables, shape.blocks_per_sm * multiprocessors)};
  return {of_one_table, n_tables};
}

}  // namespace embedding_harness
