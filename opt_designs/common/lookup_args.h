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

// One table, one batch: field(type, name). scalar_t and index_t are those of `lookup<scalar_t, index_t>`; on the host's
// side, which launches any of them, they are void. Strides are in elements.
//   weights [rows, dim], by row_stride and column_stride
//   indices [n_indices]: the row numbers of all bags, one bag after the other
//   offsets [n_bags]: where each bag begins in `indices`
//   sample_weights [n_indices], by sample_weight_stride; or null
//   output [n_bags, dim], contiguous
//   offset2bag [n_indices]: the bag of every index; or null
//   bag_size [n_bags]: indices of the bag that are not padding; or null
//   padding_idx: this row number counts as absent; -1: none
//   mode: a LookupMode
#define LOOKUP_FIELDS(field)                \
  field(const scalar_t*, weights)           \
  field(const index_t*, indices)            \
  field(const index_t*, offsets)            \
  field(const scalar_t*, sample_weights)    \
  field(scalar_t*, output)                  \
  field(index_t*, offset2bag)               \
  field(index_t*, bag_size)                 \
  field(lookup_int64, n_indices)            \
  field(lookup_int64, n_bags)               \
  field(lookup_int64, dim)                  \
  field(lookup_int64, rows)                 \
  field(lookup_int64, row_stride)           \
  field(lookup_int64, column_stride)        \
  field(lookup_int64, sample_weight_stride) \
  field(lookup_int64, padding_idx)          \
  field(int, mode)

template <typename scalar_t, typename index_t>
struct TypedLookupArgs {
#define LOOKUP_MEMBER(type, name) type name;
  LOOKUP_FIELDS(LOOKUP_MEMBER)
#undef LOOKUP_MEMBER
};
typedef TypedLookupArgs<void, void> LookupArgs;

// A kernel takes the fields one by one, typed, as PyTorch's did: of a struct, or of pointers to void, the compiler of
// the paper's day makes other code (six registers more, or one loop with a branch where there should be two).
//   template <typename scalar_t, typename index_t>
//   __global__ void lookup(LOOKUP_PARAMETERS) { const TypedLookupArgs<scalar_t, index_t> args = LOOKUP_ARGUMENTS; ... }
#define LOOKUP_PARAMETER(type, name) , type name
#define LOOKUP_ARGUMENT(type, name) name,
#define LOOKUP_WITHOUT_FIRST(first, ...) __VA_ARGS__
#define LOOKUP_EXPANDED(...) LOOKUP_WITHOUT_FIRST(__VA_ARGS__)
#define LOOKUP_PARAMETERS LOOKUP_EXPANDED(0 LOOKUP_FIELDS(LOOKUP_PARAMETER))
#define LOOKUP_ARGUMENTS \
  { LOOKUP_FIELDS(LOOKUP_ARGUMENT) }

// Pins rows of one table in L2 before its lookup: `prepare<scalar_t>(PrepareArgs)`.
struct PrepareArgs {
  const void* weights;   // as in LookupArgs
  const void* hot_rows;  // [n_hot_rows] lookup_int64, every one within the table
  lookup_int64 n_hot_rows;
  lookup_int64 row_bytes;         // bytes of one row that the lookup reads
  lookup_int64 row_stride_bytes;  // bytes from one row to the next
};
