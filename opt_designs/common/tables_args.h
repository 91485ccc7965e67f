// The contract between PyTorch's side and designs that take every table in one launch. Both include this file, so the two
// cannot disagree about a field. Plain data: compiled by NVRTC and by the host's C++ compiler.
#pragma once

#include "lookup_args.h"

// One table, of its own rows, width and mode. Where it lies is counted from `TablesArgs::storage`, so that what is said of it
// stays true wherever the storage is; where tables lie apart, storage is null and these are addresses. `scales` is there for
// quantised rows only: [rows, 2] float16, scale and bias of each row. Quantised rows begin at multiples of 16 bytes in any
// case, and what is left of the last 16 may be read; it holds anything.
struct TableRows {
  lookup_int64 weights;
  lookup_int64 scales;
  lookup_int64 rows;
  lookup_int64 row_stride_bytes;
  int column;  // of an output row, where the table's begin
  int dim;     // columns
  int mode;    // a LookupMode, or LOOKUP_MAX: the largest per column; of an empty bag zero
  int number;  // among all tables of the call: its bags are those from number * n_bags on
};
enum { LOOKUP_MAX = 2 };

// What was wrong with a call that goes on in spite of it: row numbers outside their table, which count as rows of zeros, and
// bags whose offsets descend or leave the indices, which are empty. The first of either, whichever it was, is told.
struct LookupFaults {
  unsigned int rows;
  unsigned int offsets;
  unsigned int told;  // 1 once the following are being written
  int table;          // its number
  lookup_int64 bag;
  lookup_int64 index;  // the row number; of a wrong offset the offset
};

// What the blocks of a launch share out work by. Zeros before a launch, and after it again; no two launches that may run at
// the same time have the same.
struct Tickets {
  unsigned int next;
  unsigned int ended;
};

// All tables of one type of rows, one batch. Kernels are `NAME<weight_t, output_t, index_t, tunables...>(TablesArgs)`.
// weight_t is float, __half, __nv_bfloat16, Int8Row or Int4Row; output_t float, __half or __nv_bfloat16; index_t int or
// long long.
//   storage: what the tables' places are counted from, or null
//   tables [n_tables], on the device
//   indices [n_indices]: the row numbers of all bags, table after table, bag after bag
//   offsets [all tables of the call * n_bags + 1]: where each bag begins in `indices`, and at the end n_indices
//   sample_weights [n_indices] float32; or null
//   output [n_bags, output_stride]: every element of the tables' columns is written, whatever the call
//   tickets: of this launch
//   faults: where they are counted; null: a wrong row number or offset is an assertion
//   dim: the columns of the widest table
//   crowded_clocks: see below
//
// `lookup_tables` has a further template argument after the types, `bool generic`, and takes every call. `generic` = false
// is launched where all tables are alike (one dim, one mode other than max, each behind the other in the output), there are
// no sample weights, every row begins at a multiple of 16 bytes and holds whole groups of 16 bytes, and so does every table's
// part of every output row.
//
// A special kernel, of which design.toml says what calls it is for, is launched where besides every table has at least one
// row and fewer than 2^31 - 1, less than 4 GiB apart, and there are at most 2^31 - 1025 bags and as many lookups in all. One
// that is for tables that differ is not promised what `generic` = false is promised, but: rows of float32 begin at multiples
// of 4 bytes, those of 16 bits too, and have an even number of columns; no sample weights and no mode max.
//
// The grid, of blocks as design.toml's `threads`: x covers the bags of one table (`bags_per_block` at a time, times the chunks
// of columns where `columns_per_block` is given), y is the table. With `blocks` or `blocks_per_sm` it is one row of so many
// blocks, at most one per block of work, and the kernel strides over all of it.
struct TablesArgs {
  const void* storage;
  const TableRows* tables;
  const void* indices;
  const void* offsets;
  const float* sample_weights;
  void* output;
  LookupFaults* faults;
  Tickets* tickets;
  lookup_int64 n_indices;
  lookup_int64 n_bags;
  lookup_int64 n_tables;
  lookup_int64 dim;
  lookup_int64 output_stride;
  float rows_per_bag;  // on average, of all tables of the call
  int first_number;    // the tables' numbers are this and those that follow, in their order; -1: any numbers, in any order
  lookup_int64 crowded_clocks;
};

#ifndef __CUDACC_RTC__  // of the host
// How many clocks 1 KB of rows takes a warp, of 16 on every multiprocessor, once memory has nearly as much asked of it as it
// can give: somewhat more than half of what it takes where all wait for memory alone. `bus_bits` and both rates are what the
// driver says of the GPU; one that says nothing is taken for an H100.
constexpr lookup_int64 crowded_clocks(lookup_int64 multiprocessors, lookup_int64 clock_khz, lookup_int64 memory_khz, lookup_int64 bus_bits) {
  if (multiprocessors <= 0 || clock_khz <= 0 || memory_khz <= 0 || bus_bits <= 0) return 720;
  const lookup_int64 bits_per_ms = 2 * memory_khz * bus_bits;  // both edges of a clock carry data
  return 16 * 8192 * multiprocessors * clock_khz * 9 / 16 / bits_per_ms;
}
static_assert(crowded_clocks(132, 1980000, 2619000, 5120) == 718, "what was found best on an H100 is 720");
static_assert(crowded_clocks(132, 1980000, 3201000, 6144) == 489, "and on an H200 anything from 320 to 540");
#endif

struct Int8Row {};
struct Int4Row {};
