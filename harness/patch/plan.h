// Decides, for one call of EmbeddingBag, whether the design computes it, and what its kernel is told if so. Pure:
// looks at shapes, strides and types, touches no device, and is therefore tested without one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "launching/grid.h"
#include "lookup_args.h"

namespace embedding_harness {

using launching::ceil_div;
using launching::kMaxBlocks;

constexpr int64_t kModeMax = 2;  // sum 0 and mean 1 are those of LookupMode

struct Modes {
  bool sum;
  bool mean;
  bool max;  // of designs that take all tables
};

// What the design's manifest says that it computes.
struct Supports {
  std::vector<at::ScalarType> dtypes;
  std::vector<at::ScalarType> index_dtypes;
  Modes modes;
  bool weighted;
  bool padding;
  int64_t max_dim;  // 0: any
  int64_t dim_multiple;
};

// How blocks follow from the work: the manifest's `launch`, but for the threads in y, which each kernel has of its own.
struct LaunchShape {
  int64_t threads_x;
  int64_t blocks;
  int64_t bags_per_block;
  int64_t columns_per_block;
  int64_t blocks_per_sm;
};

// The arguments of aten::_embedding_bag that decide the result.
struct Call {
  const at::Tensor& weight;
  const at::Tensor& indices;
  const at::Tensor& offsets;
  int64_t mode;
  const std::optional<at::Tensor>& sample_weights;
  bool include_last_offset;
  int64_t padding_idx;

  Call with(const at::Tensor& other_indices, const at::Tensor& other_offsets) const {
    return {weight, other_indices, other_offsets, mode, sample_weights, include_last_offset, padding_idx};
  }
  int64_t n_bags() const { return offsets.numel() - (include_last_offset ? 1 : 0); }
  bool weighted() const { return sample_weights.has_value() && sample_weights->defined(); }
};

template <typename T>
bool contains(const std::vector<T>& all, const T& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

// What device code counts in 32 bits. These are the host's guards: what is beyond them goes to PyTorch's own kernels,
// and each may be lifted once no kernel needs it.
using launching::kMostCounted;
constexpr int64_t kMostRows = 0xfffffffeLL;   // 2^32 - 1 is no row
constexpr int64_t kMostApart = 0xffffffffLL;  // bytes, in fast calls alone

// Why a table of rows [rows, dim], `bytes` of values in each, is beyond them; null where it is not.
inline const char* too_large(const at::Tensor& weight, int64_t dim, int64_t bytes) {
  if (weight.size(0) > kMostRows) return "a table has 2^32 - 1 rows or more";
  if (dim > kMostCounted || bytes > kMostCounted) return "a row has some 2^31 columns or bytes, or more";
  return nullptr;
}

// Why so many lookups and bags of one table are beyond them.
inline const char* too_many(int64_t n_indices, int64_t n_bags) {
  if (n_indices > kMostCounted) return "there are some 2^31 lookups or more";
  if (n_bags > kMostCounted) return "there are some 2^31 bags or more";
  return nullptr;
}

inline bool is_index_type(at::ScalarType type) { return type == at::kInt || type == at::kLong; }

// Why the call goes to PyTorch's own kernel, null where the design takes it: all but sizes. Whatever PyTorch would
// refuse is refused here too, so that PyTorch raises its own error. `call.indices` and `call.offsets` are of one type
// already.
inline const char* refusal_of_kind(const Supports& supports, const Call& call) {
  const auto& [weight, indices, offsets, mode, sample_weights, include_last_offset, padding_idx] = call;
  if (weight.layout() != at::kStrided || weight.dim() != 2) return "the table is not a dense matrix";
  if (indices.dim() != 1 || offsets.dim() != 1) return "indices or offsets are not one-dimensional";
  if (indices.device() != weight.device() || offsets.device() != weight.device()) {
    return "indices or offsets are on another device than the table";
  }
  if (!contains(supports.dtypes, weight.scalar_type())) return "the table's dtype is not the design's";
  if (!is_index_type(indices.scalar_type()) || indices.scalar_type() != offsets.scalar_type()) {
    return "indices or offsets are neither int32 nor int64";
  }
  if (!contains(supports.index_dtypes, indices.scalar_type())) return "the indices' dtype is not the design's";
  if (!indices.is_contiguous() || !offsets.is_contiguous()) return "indices or offsets are not contiguous";
  if (include_last_offset) return "include_last_offset is set, and designs do not read the last offset";
  if (mode == kModeMax) return "mode is max";
  if (!(mode == LOOKUP_SUM && supports.modes.sum) && !(mode == LOOKUP_MEAN && supports.modes.mean)) {
    return "the mode is not the design's";
  }
  if (call.weighted()) {
    if (!supports.weighted) return "the design takes no per-sample weights";
    if (sample_weights->dim() != 1 || sample_weights->numel() != indices.numel()) {
      return "per-sample weights are not one for each index";
    }
    if (sample_weights->scalar_type() != weight.scalar_type()) {
      return "per-sample weights have another dtype than the table";
    }
    if (sample_weights->device() != weight.device() || sample_weights->layout() != at::kStrided) {
      return "per-sample weights are on another device than the table";
    }
  }
  if (padding_idx >= 0 && !supports.padding) return "the design takes no padding_idx";
  if (padding_idx >= weight.size(0)) return "padding_idx is outside the table";
  const int64_t dim = weight.size(1);
  if (dim == 0) return "the table has no columns";
  if (supports.max_dim != 0 && dim > supports.max_dim) return "the table has more columns than the design takes";
  if (dim % supports.dim_multiple != 0) return "the design does not take this number of columns";
  return nullptr;
}

inline bool is_aligned(int64_t bytes) { return bytes % 16 == 0; }
inline bool is_aligned(const void* address) { return is_aligned(reinterpret_cast<int64_t>(address)); }

// Whether a call asks for nothing unusual, so that a kernel's instance for fast calls may serve it. These count in 32
// bits whatever else is lifted.
inline bool is_fast(const LookupArgs& args, int64_t item_bytes) {
  return args.rows <= kMostRows && args.row_stride * item_bytes <= kMostApart && args.sample_weights == nullptr &&
         args.padding_idx < 0 && args.column_stride == 1 && is_aligned(args.weights) &&
         is_aligned(args.row_stride * item_bytes) && is_aligned(args.dim * item_bytes);
}

// The kernel's arguments for a call without `refusal`, all but the pointers to what it writes.
inline LookupArgs arguments(const Call& call) {
  LookupArgs args{};
  args.weights = call.weight.const_data_ptr();
  args.indices = call.indices.const_data_ptr();
  args.offsets = call.offsets.const_data_ptr();
  if (call.weighted()) {
    args.sample_weights = call.sample_weights->const_data_ptr();
    args.sample_weight_stride = call.sample_weights->stride(0);
  }
  args.n_indices = call.indices.numel();
  args.n_bags = call.n_bags();
  args.dim = call.weight.size(1);
  args.rows = call.weight.size(0);
  args.row_stride = call.weight.stride(0);
  args.column_stride = call.weight.stride(1);
  args.padding_idx = std::max<int64_t>(call.padding_idx, -1);
  args.mode = static_cast<int>(call.mode);
  return args;
}

// Whether the grid is of one dimension and its blocks stride over all of the work.
inline bool strides(const LaunchShape& shape) { return shape.blocks > 0 || shape.blocks_per_sm > 0; }

// As many blocks as cover the work on one table.
inline int64_t covering_blocks(const LaunchShape& shape, int64_t n_bags, int64_t dim) {
  const int64_t count = ceil_div(n_bags, shape.bags_per_block);
  return shape.columns_per_block > 0 ? count * ceil_div(dim, shape.columns_per_block) : count;
}

// Whether a launch has room for them.
inline bool is_launchable(const LaunchShape& shape, int64_t n_bags, int64_t dim) {
  return strides(shape) || covering_blocks(shape, n_bags, dim) <= kMaxBlocks;
}

// Blocks of the one-dimensional grid.
inline int64_t blocks(const LaunchShape& shape, int64_t n_bags, int64_t dim, int64_t multiprocessors) {
  if (shape.blocks > 0) return shape.blocks;
  const int64_t count = covering_blocks(shape, n_bags, dim);
  return shape.blocks_per_sm > 0 ? std::min(count, shape.blocks_per_sm * multiprocessors) : count;
}

// Why the call goes to PyTorch's own kernel; null where the design takes it.
inline const char* refusal(const Supports& supports, const LaunchShape& shape, const Call& call) {
  if (const char* why = refusal_of_kind(supports, call)) return why;
  const int64_t dim = call.weight.size(1);
  if (const char* why = too_large(call.weight, dim, dim * static_cast<int64_t>(call.weight.element_size()))) return why;
  if (const char* why = too_many(call.indices.numel(), call.n_bags())) return why;
  return is_launchable(shape, call.n_bags(), dim) ? nullptr : "more bags than one launch has room for";
}

}  // namespace embedding_harness
