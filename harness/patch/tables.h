// Decides, for one call of embedding_bags, whether the design computes it, and what its kernel is told if so. Pure, as
// plan.h is: looks at shapes, strides and types, touches no device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
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
  const bool supported = call.mode == LOOKUP_SUM    ? supports.sum
                         : call.mode == LOOKUP_MEAN ? supports.mean
                                                    : supports.max;
  if (!supported) return "the mode is not the design's";
  if (call.sample_weights.has_value() && !supports.weighted) return "the design takes no per-sample weights";
  if (supports.max_dim != 0 && call.dim > supports.max_dim) return "the tables have more columns than the design takes";
  if (call.dim % supports.dim_multiple != 0) return "the design does not take this number of columns";
  if (call.quantised() && !quantised_rows_are_aligned(call)) {
    return "the rows of a quantised table do not begin at multiples of 16 bytes";
  }
  for (const at::Tensor& weight : call.weights) {
    if (const char* why = too_large(weight, call.dim, call.row_bytes())) return why;
  }
  if (const char* why = too_many(call.indices.numel(), call.n_bags())) return why;
  if (!strides(design.shape) && call.n_tables() > kMaxRowsOfBlocks) return "more tables than one launch has room for";
  return is_launchable(design.shape, call.n_bags(), call.dim) ? nullptr : "more bags than one launch has room for";
}

inline std::vector<TableRows> descriptors(const TablesCall& call) {
  std::vector<TableRows> tables;
  tables.reserve(call.weights.size());
  for (std::size_t i = 0; i < call.weights.size(); i++) {
    const at::Tensor& weight = call.weights[i];
    tables.push_back({weight.const_data_ptr(), call.quantised() ? call.scales[i].const_data_ptr() : nullptr,
                      weight.size(0), weight.stride(0) * static_cast<int64_t>(weight.element_size())});
  }
  return tables;
}

// The kernel's arguments, all but `tables`, which lie on the device.
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
  args.mode = static_cast<int>(call.mode);
  return args;
}

// Whether the kernel's instance for plain calls may serve it; see tables_args.h.
inline bool is_plain(const TablesCall& call, const std::vector<TableRows>& tables, const at::Tensor& output) {
  if (call.sample_weights.has_value() || call.mode == LOOKUP_MAX) return false;
  const int64_t output_bytes = call.dim * static_cast<int64_t>(c10::elementSize(call.output_type));
  if (!is_aligned(call.row_bytes()) || !is_aligned(output_bytes)) return false;
  if (!is_aligned(output.const_data_ptr())) return false;
  for (const TableRows& table : tables) {
    if (table.rows > kMostRows || table.row_stride_bytes > kMostApart) return false;
    if (!is_aligned(table.weights) || !is_aligned(table.row_stride_bytes)) return false;
  }
  return true;
}

// Whether a number is at least the first and less than the second, where 0 is no limit; all times `scale`.
inline bool is_within(int64_t number, const int64_t (&limits)[2], int64_t scale) {
  return number >= limits[0] * scale && (limits[1] == 0 || number < limits[1] * scale);
}

// Whether a special kernel may be told of a plain call, beyond what `refusal` knows: see tables_args.h. It counts the bags
// of all tables in 32 bits, once for every round of columns where it takes some columns at a time.
inline bool is_counted_in_32_bits(const TablesCall& call, const std::vector<TableRows>& tables) {
  constexpr int64_t columns_of_round = 128;
  const auto has_rows = [](const TableRows& table) { return table.rows >= 1; };
  return call.n_bags() * call.n_tables() * ceil_div(call.dim, columns_of_round) <= kMostCounted &&
         std::all_of(tables.begin(), tables.end(), has_rows);
}

// Whether a special kernel is made for calls of this shape.
inline bool is_for(const Special& special, const TablesCall& call, int64_t multiprocessors) {
  const int64_t n_bags = call.n_bags() * call.n_tables();
  if (!strides(special.shape) && call.n_tables() > kMaxRowsOfBlocks) return false;
  return is_within(call.indices.numel(), special.rows_per_bag, n_bags) &&
         is_within(call.n_bags(), special.bags_per_multiprocessor, multiprocessors);
}

// A kernel and how it is launched.
struct Choice {
  const LoadedKernel* kernel;
  const LaunchShape* shape;
};

// The first special kernel that is made for a plain call's shape and type, otherwise the one for any call; its kernel is
// null where there is none.
inline Choice choose(const Design& design, const LoadedDesign& loaded, const TablesCall& call,
                     const std::vector<TableRows>& tables, bool plain) {
  Instance wanted{"", call.row_type, call.indices.scalar_type(), call.output_type, !plain};
  const bool special_may = plain && is_counted_in_32_bits(call, tables);
  for (const Special& special : design.specials) {
    if (!special_may || !is_for(special, call, loaded.multiprocessors)) continue;
    wanted.function = special.function;
    if (const LoadedKernel* kernel = loaded.find(wanted)) return {kernel, &special.shape};
  }
  wanted.function = "lookup_tables";
  return {loaded.find(wanted), &design.shape};
}

// Blocks of one table where a block is to have so many rows on average: as many as are resident at the same time, or some
// times as many, since a multiprocessor that is left without work while others have another block each is lost time.
inline int64_t filling_blocks(const LaunchShape& shape, const TablesCall& call, int64_t resident) {
  const int64_t n_bags = call.n_bags() * call.n_tables(), n_indices = std::max<int64_t>(call.indices.numel(), 1);
  const int64_t times = std::max<int64_t>(ceil_div(n_indices, shape.most_rows_per_block * resident), 1);
  const int64_t of_one_table = std::max<int64_t>(times * resident / call.n_tables(), 1);
  const int64_t least_bags = ceil_div(shape.least_rows_per_block * n_bags, n_indices);
  return ceil_div(call.n_bags(), std::max(ceil_div(call.n_bags(), of_one_table), least_bags));
}

inline Grid grid(const Choice& choice, const TablesCall& call, int64_t multiprocessors) {
  const LaunchShape& shape = *choice.shape;
  if (shape.blocks > 0) return {shape.blocks};
  const int64_t of_one_table = shape.most_rows_per_block > 0
                                   ? filling_blocks(shape, call, std::max<int64_t>(choice.kernel->resident_blocks * multiprocessors, 1))
                                   : covering_blocks(shape, call.n_bags(), call.dim);
  if (shape.blocks_per_sm > 0) {
    return {std::min(of_one_table * call.n_tables(), shape.blocks_per_sm * multiprocessors)};
  }
  return {of_one_table, call.n_tables()};
}

}  // namespace embedding_harness
