// The contract between PyTorch's side (harness/patch) and designs that take every table in one launch. Both include
// this file, so the two cannot disagree about a field. Plain data: compiled by NVRTC and by the host's C++ compiler.
#pragma once

#include "lookup_args.h"

// One table. `scales` is there for quantised rows only: [rows, 2] float16, scale and bias of each row. Quantised rows
// begin at multiples of 16 bytes in any case, and what is left of the last 16 may be read; it holds anything.
struct TableRows {
  const void* weights;
  const void* scales;
  lookup_int64 rows;
  lookup_int64 row_stride_bytes;
};

// All tables, one batch: the kernel is `lookup_tables<weight_t, output_t, index_t, bool general, tunables...>(TablesArgs)`.
// weight_t is float, __half, __nv_bfloat16, Int8Row or Int4Row; output_t float, __half or __nv_bfloat16; index_t int or
// long long. `general` is compiled for false and true: false is launched where there are no sample weights, the mode is
// sum or mean, every row begins at a multiple of 16 bytes and holds whole groups of 16 bytes, and so does every table's
// part of every output row; otherwise true.
//   tables [n_tables], on the device
//   indices [n_indices]: the row numbers of all bags, table after table, bag after bag
//   offsets [n_tables * n_bags + 1]: where each bag begins in `indices`, and at the end n_indices
//   sample_weights [n_indices] float32; or null
//   output [n_bags, output_stride]: table t's columns begin at t * dim
//   mode: a LookupMode, or LOOKUP_MAX where design.toml says so: the largest per column; of an empty bag zero
//
// A special kernel, of which design.toml says what calls it is for, is `NAME<weight_t, output_t, index_t, tunables...>`. It
// is launched for plain calls alone, such as `general` = false is for, where besides every table has at least one row and
// fewer than 2^32 - 1, and there are at most 2^31 - 1025 bags and as many lookups in all.
//
// The grid, of blocks as design.toml's `threads`: x covers the bags of one table (`bags_per_block` at a time, times the chunks
// of columns where `columns_per_block` is given; or neighbouring ones, as many to each block and to the last what is left,
// where `rows_per_block` is), y is the table. With `blocks` or `blocks_per_sm` it is one row of so many blocks, at most one
// per block of work, and the kernel strides over all of it.
enum { LOOKUP_MAX = 2 };

struct TablesArgs {
  const TableRows* tables;
  const void* indices;
  const void* offsets;
  const float* sample_weights;
  void* output;
  lookup_int64 n_indices;
  lookup_int64 n_bags;
  lookup_int64 n_tables;
  lookup_int64 dim;
  lookup_int64 output_stride;
  int mode;
};

struct Int8Row {};
struct Int4Row {};
