// Any call: bags of any length, tables of any width, sample weights and the mode max included.
//
// One thread and one warp: see gathered_rows.cuh. One block: four warps, for narrower rows two or one; they share one bag, a
// slice each, and add up in shared memory; where bags are short on average they take a bag each, and share only long ones.
// The grid: x covers the bags of one table, y is the table, so blocks go through one table after the other, as L2 wants it.
// In flight: per multiprocessor 16 to 28 warps with four or eight loads of 512 bytes each.
#pragma once

#include "../careful.cuh"
#include "gathered_rows.cuh"

namespace fused {
namespace generic {

constexpr int kLong = 128;  // rows from which a bag is worth the whole block

// One bag, by the block together or by this warp alone. `any`: whether it may be any call, or is a fast one.
template <typename output_t, bool any, typename index_t, typename weight_t>
__device__ __forceinline__ void gather(const TablesArgs& args, const TableRows& table, lookup_int64 bag, lookup_int64 begin, int count,
                                       bool together, gathered::Shared<weight_t>& shared, bool& wrong) {
  gathered::Bag<index_t> mine;
  mine.weights = weights_of(args, table);
  mine.scales = scales_of(args, table);
  mine.rows = static_cast<unsigned>(table.rows);
  mine.row_bytes = table.row_stride_bytes;
  mine.column_bytes = sizeof(weight_t);
  mine.dim = table.dim;
  mine.indices = static_cast<const index_t*>(args.indices) + begin;
  mine.count = count;
  mine.padding = -1;
  mine.largest = table.mode == LOOKUP_MAX;
  mine.aligned = ((reinterpret_cast<size_t>(mine.weights) | table.row_stride_bytes | table.dim * sizeof(weight_t)) %
                  gathered::kVectorBytes) == 0;
  auto scale_of = [&](int position) { return args.sample_weights ? args.sample_weights[begin + position] : 1.0f; };
  auto write = [&](int column, float4 sum, int counted) {
    output_t* at = static_cast<output_t*>(args.output) + bag * args.output_stride + table.column + column;
    gathered::store<!any>(at, gathered::result(sum, table.mode, counted), mine.dim - column);
  };
  gathered::sum_bag<weight_t, any>(mine, together, scale_of, write, shared, wrong);
}

// Below one round of row numbers per warp, a bag each keeps more of a warp busy than a slice of one. The first turn is for the
// block's own bag, the second for one bag per warp; where bags are not short there is none.
template <typename weight_t, typename output_t, typename index_t, bool any>
__device__ __forceinline__ void look_up(const TablesArgs& args, gathered::Shared<weight_t>& shared, bool& wrong) {
  constexpr int warps = gathered::kWarps<weight_t>;
  const TableRows table = args.tables[blockIdx.y];
  const bool short_bags = any && args.rows_per_bag < gathered::kLanes;
  auto bag_of = [&](bool together) { return together ? blockIdx.x : static_cast<lookup_int64>(blockIdx.x) * warps + threadIdx.y; };
  // The rows of a bag whose turn it is; none where its offsets are wrong, or -1.
  auto count_of = [&](lookup_int64 bag, bool together, lookup_int64& begin) -> lookup_int64 {
    const index_t* const offset = static_cast<const index_t*>(args.offsets) + table.number * args.n_bags + bag;
    begin = offset[0];
    const bool right = is_right(args, begin, offset[1]);
    wrong = wrong || !right;
    const lookup_int64 count = right ? offset[1] - begin : 0;
    return short_bags && (count >= kLong) != together ? -1 : count;
  };
#pragma unroll 1
  for (int turn = 0; turn <= static_cast<int>(short_bags); turn++) {
    const lookup_int64 bag = bag_of(turn == 0);
    if (bag >= args.n_bags) break;
    lookup_int64 begin;
    const lookup_int64 count = count_of(bag, turn == 0, begin);
    if (count > 0 && table.rows < 1) {
      wrong = true;
    } else if (count >= 0) {
      gather<output_t, any, index_t>(args, table, bag, begin, static_cast<int>(count), turn == 0, shared, wrong);
    }
  }
  if (args.faults == nullptr || !__syncthreads_or(wrong)) return;
#pragma unroll 1
  for (int turn = 0; turn <= static_cast<int>(short_bags); turn++) {
    const lookup_int64 bag = bag_of(turn == 0);
    lookup_int64 begin;
    if (bag >= args.n_bags || (turn == 0 && threadIdx.y != 0) || count_of(bag, turn == 0, begin) < 0) continue;
    mend_bag<weight_t, output_t, index_t>(args, table, bag);
  }
}

}  // namespace generic
}  // namespace fused
