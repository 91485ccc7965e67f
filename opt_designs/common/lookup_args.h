// The contract between PyTorch's side (harness/patch/op.cpp) and every design's device code. Both include this
// file, so the two cannot disagree about a field. Plain data: compiled by NVRTC and by the host's C++ compiler.
#pragma once

#ifdef __CUDACC_RTC__
typedef long long lookup_int64;
#else
#include <cstdint>
typedef std::int64_t lookup_int64;
#endif
static_assert(sizeof(lookup_int64) == 8, "row numbers and strides are 64 bits wide on both sides");

enum LookupMode { LOOKUP_SUM = 0, LOOKUP_MEAN = 1 };

// One table, one batch. Untyped pointers: `lookup<scalar_t, index_t>` knows the types.
struct LookupArgs {
  const void* weights;         // [rows, dim] scalar_t, by row_stride and column_stride
  const void* indices;         // [n_indices] index_t, the row numbers of all bags, one bag after the other
  const void* offsets;         // [n_bags] index_t, where each bag begins in `indices`
  const void* sample_weights;  // [n_indices] scalar_t by sample_weight_stride, or null
  void* output;                // [n_bags, dim] scalar_t, contiguous
  void* offset2bag;            // [n_indices] index_t: the bag of every index; or null
  void* bag_size;              // [n_bags] index_t: indices of the bag that are not padding; or null
  lookup_int64 n_indices;
  lookup_int64 n_bags;
  lookup_int64 dim;
  lookup_int64 rows;
  lookup_int64 row_stride;     // in elements
  lookup_int64 column_stride;  // in elements
  lookup_int64 sample_weight_stride;
  lookup_int64 padding_idx;  // this row number counts as absent; -1: none
  int mode;                  // LookupMode
};

// Pins rows of one table in L2 before its lookup: `prepare<scalar_t>`.
struct PrepareArgs {
  const void* weights;   // as in LookupArgs
  const void* hot_rows;  // [n_hot_rows] lookup_int64, every one within the table
  lookup_int64 n_hot_rows;
  lookup_int64 row_bytes;         // bytes of one row that the lookup reads
  lookup_int64 row_stride_bytes;  // bytes from one row to the next
};
