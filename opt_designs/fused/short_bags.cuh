// Bags too short to keep a warp's loads busy one at a time: lanes that share a row take neighbouring bags and read their
// rows as one stream (stream.cuh), several in flight, whatever bags they are of.
//
// One thread and one warp: see gathered_rows.cuh. One block: one warp, two or four, each with its share of the block's bags,
// as many as hold some rows on average; a long one among them is left until the end and shared by all. The grid: x covers
// the bags of one table, y is the table. In flight per lane: eight rows, four where they are quantised.
#pragma once

#include "stream.cuh"

namespace fused {

// Resident blocks that the compiler is to leave registers for: 24 warps of float32 rows, 16 of four-bit ones, otherwise 20.
template <typename weight_t>
constexpr int short_blocks = (gathered::Row<weight_t>::kColumns == 4 ? 24 : gathered::Row<weight_t>::kColumns == 32 ? 16 : 20) /
                             gathered::Row<weight_t>::kWarps;

// One bag, by the block together or by this warp alone.
template <typename output_t, bool general, typename index_t, typename weight_t>
__device__ __forceinline__ void gather(const TablesArgs& args, const TableRows& rows, lookup_int64 bag, lookup_int64 begin, int count,
                                       bool together, gathered::Shared<weight_t>& shared, bool& wrong) {
  gathered::Bag<index_t> mine;
  mine.weights = static_cast<const char*>(rows.weights);
  mine.scales = static_cast<const unsigned*>(rows.scales);
  mine.rows = static_cast<unsigned>(rows.rows);
  mine.row_bytes = static_cast<unsigned>(rows.row_stride_bytes);
  mine.column_bytes = sizeof(weight_t);
  mine.dim = static_cast<int>(args.dim);
  mine.indices = static_cast<const index_t*>(args.indices) + begin;
  mine.count = count;
  mine.padding = -1;
  mine.largest = args.mode == LOOKUP_MAX;
  mine.aligned = ((reinterpret_cast<size_t>(rows.weights) | rows.row_stride_bytes | args.dim * sizeof(weight_t)) %
                  gathered::kPieceBytes) == 0;
  auto scale_of = [&](int position) { return args.sample_weights ? args.sample_weights[begin + position] : 1.0f; };
  auto write = [&](int column, float4 sum, int counted) {
    output_t* at = static_cast<output_t*>(args.output) + bag * args.output_stride + blockIdx.y * args.dim + column;
    gathered::store<!general>(at, gathered::result(sum, args.mode, counted), mine.dim - column);
  };
  gathered::sum_bag<weight_t, general>(mine, together, scale_of, write, shared, wrong);
}

// The short bags from `first` to `end`, by one warp, for plain calls.
template <typename weight_t, typename output_t, typename index_t, int fixed>
__device__ __forceinline__ void stream_bags(const TablesArgs& args, const TableRows& table, unsigned first, unsigned end,
                                            bool& wrong) {
  typedef gathered::Row<weight_t> Type;
  constexpr int in_flight = Type::kInFlight, columns = Type::kColumns;
  int across = fixed;  // lanes that share a row: a team
  if (fixed == 0) {
    across = gathered::kRound / columns;
    while (across / 2 * columns >= args.dim) across /= 2;
  }
  const unsigned teams = kLanes / across, team = threadIdx.x / across, each = (end - first + teams - 1) / teams;
  first = min(first + team * each, end);
  end = min(first + each, end);

#pragma unroll 1
  for (int round = 0; round < args.dim; round += gathered::kRound) {
    const int column = round + threadIdx.x % across * columns;
    // A lane beyond the last column reads the first ones along, and its sum is left alone.
    const bool inside = column < args.dim;
    const int pieces_before = inside ? column / columns : 0;
    const char* const rows = kept(static_cast<const char*>(table.weights) + pieces_before * gathered::kPieceBytes);
    const unsigned row_bytes = static_cast<unsigned>(table.row_stride_bytes);
    output_t* const output = static_cast<output_t*>(args.output) + blockIdx.y * args.dim + column;
    float sum[columns], biases = 0;
#pragma unroll
    for (int i = 0; i < columns; i++) sum[i] = 0;
    int counted = 0;
    Stream<index_t, fixed> stream(args, across, first, end);
#pragma unroll 1
    while (stream.more(static_cast<unsigned>(table.rows))) {
      const int here = stream.here(in_flight);
      uint4 piece[in_flight];
      unsigned scale[in_flight];
#pragma unroll
      for (int k = 0; k < in_flight; k++) {
        // In the place of rows that are not there the last one once more: a load under a condition would be waited for.
        const unsigned row = stream.row(min(k, here - 1));
        load(piece[k], rows + static_cast<unsigned long long>(row_bytes) * row);
        scale[k] = Type::kQuantised ? __ldg(static_cast<const unsigned*>(table.scales) + row) : 0;
      }
#pragma unroll
      for (int k = 0; k < in_flight; k++) {
        const int bag = stream.ended(k);
        if (k >= here) continue;
        float v[columns];
        Type::widen(piece[k], v);
        const float2 pair = gathered::low_high(scale[k], __half());
        biases += Type::kQuantised ? pair.y : 0;
#pragma unroll
        for (int i = 0; i < columns; i++) sum[i] = Type::kQuantised ? fmaf(v[i], pair.x, sum[i]) : sum[i] + v[i];
        counted++;
        if (bag < 0) continue;
#pragma unroll
        for (int i = 0; i < columns; i += 4) {
          const float4 four = {sum[i] + biases, sum[i + 1] + biases, sum[i + 2] + biases, sum[i + 3] + biases};
          if (inside) gathered::store<true>(output + bag * args.output_stride + i, gathered::result(four, args.mode, counted), 4);
          sum[i] = sum[i + 1] = sum[i + 2] = sum[i + 3] = 0;
        }
        biases = 0, counted = 0;
      }
      stream.take(here, wrong);
    }
  }
}

// What bags from `first` to `end` have beside rows in a stream: zeros where a bag is empty, and whether there are long ones
// and wrong ones.
template <typename output_t, typename index_t>
__device__ __forceinline__ bool look_after(const TablesArgs& args, unsigned first, unsigned end, bool& wrong) {
  const index_t* const offsets = static_cast<const index_t*>(args.offsets) + blockIdx.y * args.n_bags;
  bool long_bags = false;
#pragma unroll 1
  for (unsigned group = first; group < end; group += kLanes) {
    const unsigned mine = min(group + threadIdx.x, end - 1);
    const lookup_int64 begin = offsets[mine], count = offsets[mine + 1] - begin;
    const bool right = is_right(args, begin, count);
    wrong = wrong || !right;
    long_bags = long_bags || (right && count >= kLong);
#pragma unroll 1
    for (unsigned empty = __ballot_sync(kAll, count == 0); empty != 0; empty &= empty - 1) {
      const unsigned bag = min(group + __ffs(empty) - 1, end - 1);
      output_t* const output = static_cast<output_t*>(args.output) + bag * args.output_stride + blockIdx.y * args.dim;
#pragma unroll 1
      for (int column = threadIdx.x * 4; column < args.dim; column += gathered::kRound) {
        gathered::store<true>(output + column, {0, 0, 0, 0}, 4);
      }
    }
  }
  return long_bags;
}

// The bags of a block: those with few rows as streams, and then the others.
template <typename output_t, typename index_t, typename weight_t>
__device__ __forceinline__ void look_up_short(const TablesArgs& args, gathered::Shared<weight_t>& shared, bool& long_bags,
                                              bool& wrong) {
  constexpr int warps = gathered::Row<weight_t>::kWarps;
  const TableRows rows = args.tables[blockIdx.y];
  const unsigned n_bags = static_cast<unsigned>(args.n_bags), each = (n_bags - 1) / gridDim.x + 1;
  const unsigned first = min(blockIdx.x * each, n_bags), end = min(first + each, n_bags);
  if (threadIdx.x == 0 && threadIdx.y == 0) long_bags = false;
  __syncthreads();
  const unsigned of_warp = (each + warps - 1) / warps, mine = min(first + threadIdx.y * of_warp, end);
  const unsigned until = min(mine + of_warp, end);
  constexpr int full = gathered::kRound / gathered::Row<weight_t>::kColumns;
  if (args.dim > gathered::kRound / 2) {
    stream_bags<weight_t, output_t, index_t, full>(args, rows, mine, until, wrong);
  } else {
    stream_bags<weight_t, output_t, index_t, 0>(args, rows, mine, until, wrong);
  }
  if (look_after<output_t, index_t>(args, mine, until, wrong)) long_bags = true;
  __syncthreads();
  if (!long_bags) return;
#pragma unroll 1
  for (unsigned bag = first; bag < end; bag++) {
    const index_t* const offset = static_cast<const index_t*>(args.offsets) + blockIdx.y * args.n_bags + bag;
    const lookup_int64 begin = offset[0], count = offset[1] - begin;
    if (count < kLong || !is_right(args, begin, count)) continue;
    gather<output_t, false, index_t>(args, rows, bag, begin, static_cast<int>(count), true, shared, wrong);
  }
}

}  // namespace fused
