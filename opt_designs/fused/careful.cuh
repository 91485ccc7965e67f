// The slow and safe way, for bags near a wrong row number or offset in a call that counts them (`TablesArgs::faults`) instead
// of failing: every row number is looked at before it is read, one outside its table counts as a row of zeros, and a bag with
// wrong offsets is empty. One warp to a bag.
#pragma once

#include "row_types.cuh"
#include "tables.cuh"

namespace fused {

// As in PyTorch, an offset is wrong where it descends or leaves the indices.
__device__ __forceinline__ bool is_right(const TablesArgs& args, lookup_int64 begin, lookup_int64 end) {
  return begin >= 0 && end >= begin && end <= args.n_indices && end - begin <= 0x7fffffff;
}

// By one thread for every fault.
__device__ __forceinline__ void tell(LookupFaults* faults, unsigned* counter, const TableRows& table, lookup_int64 bag, lookup_int64 index) {
  atomicAdd(counter, 1u);
  if (atomicExch(&faults->told, 1u) == 0) faults->table = table.number, faults->bag = bag, faults->index = index;
}

template <typename weight_t>
__device__ __forceinline__ float value_at(const TablesArgs& args, const TableRows& table, lookup_int64 row, int column) {
  const weight_t* const values = reinterpret_cast<const weight_t*>(weights_of(args, table) + row * table.row_stride_bytes);
  return static_cast<float>(values[column]);
}
__device__ __forceinline__ float dequantised(const TablesArgs& args, const TableRows& table, lookup_int64 row, unsigned value) {
  const float2 pair = gathered::low_high(scales_of(args, table)[row], __half());
  return fmaf(static_cast<float>(value), pair.x, pair.y);
}
template <>
__device__ __forceinline__ float value_at<Int8Row>(const TablesArgs& args, const TableRows& table, lookup_int64 row, int column) {
  const unsigned char* const values = reinterpret_cast<const unsigned char*>(weights_of(args, table)) + row * table.row_stride_bytes;
  return dequantised(args, table, row, values[column]);
}
template <>
__device__ __forceinline__ float value_at<Int4Row>(const TablesArgs& args, const TableRows& table, lookup_int64 row, int column) {
  const unsigned char* const values = reinterpret_cast<const unsigned char*>(weights_of(args, table)) + row * table.row_stride_bytes;
  return dequantised(args, table, row, values[column / 2] >> column % 2 * 4 & 15);
}

// `tells`: whether faults are counted.
template <typename weight_t, typename output_t, typename index_t>
__device__ __forceinline__ void look_up_carefully(const TablesArgs& args, const TableRows& table, lookup_int64 bag, bool tells = true) {
  const index_t* const offset = static_cast<const index_t*>(args.offsets) + table.number * args.n_bags + bag;
  const lookup_int64 begin = offset[0];
  lookup_int64 end = offset[1];
  if (!is_right(args, begin, end)) {
    if (tells && threadIdx.x == 0) tell(args.faults, &args.faults->offsets, table, bag, end);
    end = begin;
  }
  const index_t* const indices = static_cast<const index_t*>(args.indices);
  output_t* const output = static_cast<output_t*>(args.output) + bag * args.output_stride + table.column;
  for (lookup_int64 i = begin + threadIdx.x; i < end; i += gathered::kLanes) {
    if (tells && (indices[i] < 0 || indices[i] >= table.rows)) tell(args.faults, &args.faults->rows, table, bag, indices[i]);
  }
  for (int column = threadIdx.x; column < table.dim; column += gathered::kLanes) {
    const bool largest = table.mode == LOOKUP_MAX;
    float sum = largest && end > begin ? __int_as_float(0xff800000) : 0;
    for (lookup_int64 i = begin; i < end; i++) {
      float value = 0;
      if (indices[i] >= 0 && indices[i] < table.rows) value = value_at<weight_t>(args, table, indices[i], column);
      if (args.sample_weights) value *= args.sample_weights[i];
      sum = largest ? fmaxf(sum, value) : sum + value;
    }
    if (table.mode == LOOKUP_MEAN && end > begin) sum /= static_cast<float>(end - begin);
    output[column] = static_cast<output_t>(sum);
  }
}

// Whether a bag's offsets or row numbers are wrong; the same for all lanes of the warp.
template <typename index_t>
__device__ __forceinline__ bool is_faulty(const TablesArgs& args, const TableRows& table, lookup_int64 bag) {
  const index_t* const offset = static_cast<const index_t*>(args.offsets) + table.number * args.n_bags + bag;
  const index_t* const indices = static_cast<const index_t*>(args.indices);
  const lookup_int64 begin = offset[0], end = offset[1];
  bool wrong = !is_right(args, begin, end);
  if (!wrong) {
    for (lookup_int64 i = begin + threadIdx.x; i < end; i += gathered::kLanes) wrong = wrong || indices[i] < 0 || indices[i] >= table.rows;
  }
  return __any_sync(gathered::kAll, wrong);
}

// A bag that has been looked up: anew, if anything is wrong with it.
template <typename weight_t, typename output_t, typename index_t>
__device__ __forceinline__ void mend_bag(const TablesArgs& args, const TableRows& table, lookup_int64 bag, bool tells = true) {
  if (is_faulty<index_t>(args, table, bag)) look_up_carefully<weight_t, output_t, index_t>(args, table, bag, tells);
}

}  // namespace fused
