// Bags too short to keep a warp's loads busy one at a time: lanes that share a row take neighbouring bags and read their
// rows as one stream, several in flight, whatever bags they are of.
//
// One thread and one warp: see gathered_rows.cuh. One block: one warp, two or four, each with its share of the block's bags,
// as many as hold some rows on average; a long one among them is left until the end and shared by all. The grid: x covers
// the bags of one table, y is the table. In flight per lane: eight rows, four where they are quantised.
#pragma once

#include "gathered_rows.cuh"

namespace fused {

constexpr int kLong = 128;  // rows from which a bag is left to the whole block

// As in PyTorch, an offset is wrong where it descends or leaves the indices.
__device__ __forceinline__ bool is_right(const TablesArgs& args, lookup_int64 begin, lookup_int64 count) {
  return begin >= 0 && count >= 0 && begin + count <= args.n_indices && count <= 0x7fffffff;
}

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

// The bags from `first` to `end`, by one warp, for plain calls. Tells where it left long ones through `long_bags`.
template <typename weight_t, typename output_t, typename index_t>
__device__ __forceinline__ void stream_bags(const TablesArgs& args, const TableRows& table, lookup_int64 first, lookup_int64 end,
                                            bool& long_bags, bool& wrong) {
  typedef gathered::Row<weight_t> Type;
  constexpr int in_flight = Type::kInFlight, columns = Type::kColumns;
  int across = gathered::kRound / columns;  // lanes that share a row
  while (across / 2 * columns >= args.dim) across /= 2;
  const int at_once = gathered::kLanes / across, mine = threadIdx.x / across;
  const lookup_int64 each = (end - first + at_once - 1) / at_once;
  const index_t* const offsets = static_cast<const index_t*>(args.offsets) + blockIdx.y * args.n_bags;
  const index_t* const indices = static_cast<const index_t*>(args.indices);
  first += mine * each;
  end = min(first + each, end);

#pragma unroll 1
  for (int column = threadIdx.x % across * columns; column < args.dim; column += gathered::kRound) {
    const char* const rows = kept(static_cast<const char*>(table.weights) + column / columns * gathered::kPieceBytes);
    output_t* const output = static_cast<output_t*>(args.output) + blockIdx.y * args.dim + column;
    float sum[columns], biases = 0;
#pragma unroll
    for (int i = 0; i < columns; i++) sum[i] = 0;
    auto write = [&](lookup_int64 bag, int i, float4 four) {
      gathered::store<true>(output + bag * args.output_stride + i, four, 4);
    };

    // The bag whose rows are being read, where its next row stands, and where it ends.
    lookup_int64 bag = first - 1, next = 0, after = 0;
    auto open = [&] {
      while (++bag < end) {
        next = offsets[bag], after = offsets[bag + 1];
        if (!is_right(args, next, after - next)) {
          wrong = true;
        } else if (after == next) {
#pragma unroll 1
          for (int i = 0; i < columns; i += 4) write(bag, i, {0, 0, 0, 0});
        } else if (after - next < kLong) {
          return;
        } else {
          long_bags = true;
        }
      }
    };
    open();
    int counted = 0;
#pragma unroll 1
    while (bag < end) {
      index_t index[in_flight];
      lookup_int64 last_of[in_flight];  // the bag whose last row it is, or -1
      int there = 0;
#pragma unroll
      for (int k = 0; k < in_flight; k++) {
        index[k] = 0, last_of[k] = -1;
        if (bag < end) {
          index[k] = read_once(indices + next++);
          there = k + 1;
          if (next == after) {
            last_of[k] = bag;
            open();
          }
        }
      }
      uint4 piece[in_flight];
      unsigned scale[in_flight];
#pragma unroll
      for (int k = 0; k < in_flight; k++) {
        const bool known = static_cast<unsigned long long>(index[k]) < static_cast<unsigned long long>(table.rows);
        wrong = wrong || !known;
        const unsigned row = known ? static_cast<unsigned>(index[k]) : 0;
        load(piece[k], rows + static_cast<unsigned long long>(static_cast<unsigned>(table.row_stride_bytes)) * row);
        scale[k] = Type::kQuantised ? __ldg(static_cast<const unsigned*>(table.scales) + row) : 0;
      }
#pragma unroll
      for (int k = 0; k < in_flight; k++) {
        if (k < there) {
          float v[columns];
          Type::widen(piece[k], v);
          const float2 pair = gathered::low_high(scale[k], __half());
          biases += Type::kQuantised ? pair.y : 0;
#pragma unroll
          for (int i = 0; i < columns; i++) sum[i] = Type::kQuantised ? fmaf(v[i], pair.x, sum[i]) : sum[i] + v[i];
          counted++;
          if (last_of[k] < 0) continue;
#pragma unroll
          for (int i = 0; i < columns; i += 4) {
            const float4 four = {sum[i] + biases, sum[i + 1] + biases, sum[i + 2] + biases, sum[i + 3] + biases};
            write(last_of[k], i, gathered::result(four, args.mode, counted));
            sum[i] = sum[i + 1] = sum[i + 2] = sum[i + 3] = 0;
          }
          biases = 0, counted = 0;
        }
      }
    }
  }
}

// The bags of a block: those with few rows as streams, and then the others.
template <typename output_t, typename index_t, typename weight_t>
__device__ __forceinline__ void look_up_short(const TablesArgs& args, gathered::Shared<weight_t>& shared, bool& long_bags, bool& wrong) {
  constexpr int warps = gathered::Row<weight_t>::kWarps;
  const TableRows rows = args.tables[blockIdx.y];
  const unsigned n_bags = static_cast<unsigned>(args.n_bags), each = (n_bags - 1) / gridDim.x + 1;
  const unsigned first = min(blockIdx.x * each, n_bags), end = min(first + each, n_bags);
  if (threadIdx.x == 0 && threadIdx.y == 0) long_bags = false;
  __syncthreads();
  const unsigned of_warp = (each + warps - 1) / warps, mine = min(first + threadIdx.y * of_warp, end);
  bool left = false;
  stream_bags<weight_t, output_t, index_t>(args, rows, mine, min(mine + of_warp, end), left, wrong);
  if (left) long_bags = true;
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
