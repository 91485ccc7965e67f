// Bags of some length over tables that are alike and of wide rows: a row is fetched as a whole, and not 128 columns of it
// after the others of all bags.
//
// One thread: two vectors of four columns, 128 apart, of 256; wider rows take several rounds. One warp: a slice of a bag; of
// 128 rows at a time it reads and checks the row numbers into shared memory, then has four rows, eight loads, in flight. One
// block: four warps with two bags, of which a warp each adds up a half. The grid: x covers the bags of one table, y is the
// table. In flight: 32 warps of a multiprocessor with eight loads of 512 bytes each.
#pragma once

#include "../careful.cuh"
#include "gathered_rows.cuh"

namespace fused {
namespace wide {

using gathered::kLanes;
using gathered::kRound;

constexpr int kWarps = launch::lookup_wide::kThreadsY, kBags = launch::lookup_wide::kBagsPerBlock;
constexpr int kTeam = kWarps / kBags;  // warps that share a bag
static_assert(launch::lookup_wide::kThreadsX == kLanes, "a row of a block's threads is a warp");
static_assert(kTeam * kBags == kWarps, "every bag has as many warps");
constexpr int kResidentBlocks = 32 / kWarps;  // more warps would have fewer loads in flight, and bring less
constexpr int kInFlight = 4, kList = 128, kHalves = 2, kColumns = kHalves * kRound;

struct Shared {
  unsigned rows[kWarps][kList];
  float4 sums[kWarps][kHalves][kLanes];
};

__device__ __forceinline__ void add(float4& sum, const uint4& row) {
  sum.x += __uint_as_float(row.x), sum.y += __uint_as_float(row.y);
  sum.z += __uint_as_float(row.z), sum.w += __uint_as_float(row.w);
}
__device__ __forceinline__ void add(float4& sum, const float4& more) { sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w; }

// A lane's columns of every row. `whole`: all lanes have columns in both halves.
template <bool whole>
struct Columns {
  const char* first;
  unsigned half;  // bytes from there to the lane's columns of the second half; 0, and the first once more, where it has none

  __device__ __forceinline__ Columns(const char* weights, int column, int dim) : half(kRound * sizeof(float)) {
    if (!whole && column + kRound >= dim) half = 0;
    first = kept(weights + (whole || column < dim ? column : 0) * sizeof(float));
  }
  __device__ __forceinline__ void load(uint4 (&vectors)[kHalves], unsigned row_bytes, unsigned row) const {
    const char* const at = first + static_cast<unsigned long long>(row_bytes) * row;
    ::load(vectors[0], at);
    ::load(vectors[1], at + (whole ? kRound * sizeof(float) : half));
  }
};

// Adds up `count` rows, whose numbers begin at `indices`, by one warp.
template <bool whole, typename index_t>
__device__ __forceinline__ void add_rows(const Columns<whole>& columns, const TableRows& table, const index_t* indices, int count,
                                         unsigned (&rows)[kList], float4 (&sum)[kHalves], bool& wrong) {
  const int lane = threadIdx.x;
  const unsigned row_bytes = static_cast<unsigned>(table.row_stride_bytes), n_rows = static_cast<unsigned>(table.rows);
#pragma unroll 1
  for (int at = 0; at < count; at += kList) {
    const int here = min(kList, count - at);
    __syncwarp();
#pragma unroll
    for (int i = lane; i < kList; i += kLanes) {
      if (i >= here) break;
      const index_t index = read_once(indices + at + i);
      const bool known = static_cast<unsigned long long>(index) < n_rows;
      wrong = wrong || !known;
      rows[i] = known ? static_cast<unsigned>(index) : 0;
    }
    __syncwarp();
    uint4 vectors[kInFlight][kHalves];
    int i = 0;
#pragma unroll 1
    for (; i + kInFlight <= here; i += kInFlight) {
#pragma unroll
      for (int k = 0; k < kInFlight; k++) columns.load(vectors[k], row_bytes, rows[i + k]);
#pragma unroll
      for (int k = 0; k < kInFlight; k++) {
#pragma unroll
        for (int half = 0; half < kHalves; half++) add(sum[half], vectors[k][half]);
      }
    }
    if (i == here) continue;
#pragma unroll
    for (int k = 0; k < kInFlight - 1; k++) {
      vectors[k][0] = vectors[k][1] = {0, 0, 0, 0};
      if (i + k < here) columns.load(vectors[k], row_bytes, rows[i + k]);
    }
#pragma unroll
    for (int k = 0; k < kInFlight - 1; k++) {
#pragma unroll
      for (int half = 0; half < kHalves; half++) add(sum[half], vectors[k][half]);
    }
  }
}

// 256 columns of this warp's bag, of which the warps of a team have a slice each.
template <bool whole, typename output_t, typename index_t>
__device__ __forceinline__ void look_up_round(const TablesArgs& args, const TableRows& table, lookup_int64 bag, const index_t* indices,
                                              int count, int round, Shared& shared, bool& wrong) {
  const int lane = threadIdx.x, warp = threadIdx.y, member = warp % kTeam, column = round + lane * 4;
  const int slice = (count + kTeam - 1) / kTeam, from = min(member * slice, count);
  float4 sum[kHalves] = {};
  add_rows<whole>(Columns<whole>(weights_of(args, table), column, table.dim), table, indices + from, min(slice, count - from),
                  shared.rows[warp], sum, wrong);
#pragma unroll
  for (int half = 0; half < kHalves; half++) shared.sums[warp][half][lane] = sum[half];
  __syncthreads();
  if (member == 0 && bag < args.n_bags) {
    output_t* const output = static_cast<output_t*>(args.output) + bag * args.output_stride + table.column + column;
#pragma unroll
    for (int half = 0; half < kHalves; half++) {
#pragma unroll
      for (int other = 1; other < kTeam; other++) add(sum[half], shared.sums[warp + other][half][lane]);
      if (whole || column + half * kRound < table.dim) {
        gathered::store<true>(output + half * kRound, gathered::result(sum[half], table.mode, count), 4);
      }
    }
  }
  __syncthreads();
}

template <typename output_t, typename index_t>
__device__ __forceinline__ void look_up(const TablesArgs& args, Shared& shared, bool& wrong) {
  const TableRows table = args.tables[blockIdx.y];
  const lookup_int64 bag = static_cast<lookup_int64>(blockIdx.x) * kBags + threadIdx.y / kTeam;
  lookup_int64 begin = 0, count = 0;
  if (bag < args.n_bags) {
    const index_t* const offset = static_cast<const index_t*>(args.offsets) + table.number * args.n_bags + bag;
    begin = offset[0];
    const bool right = is_right(args, begin, offset[1]);
    wrong = wrong || !right;
    count = right ? offset[1] - begin : 0;
  }
  const index_t* const indices = static_cast<const index_t*>(args.indices) + begin;
#pragma unroll 1
  for (int round = 0; round < table.dim; round += kColumns) {
    if (table.dim % kColumns == 0) {
      look_up_round<true, output_t>(args, table, bag, indices, static_cast<int>(count), round, shared, wrong);
    } else {
      look_up_round<false, output_t>(args, table, bag, indices, static_cast<int>(count), round, shared, wrong);
    }
  }
  if (args.faults != nullptr && __syncthreads_or(wrong) && threadIdx.y % kTeam == 0 && bag < args.n_bags) {
    mend_bag<float, output_t, index_t>(args, table, bag);
  }
}

}  // namespace wide
}  // namespace fused
