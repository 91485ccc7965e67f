// In which order a warp takes the rows of a bag: that of the parts of their table, and any order within a part.
//
// When all bags of a table are looked up at the same time and each passes over the table in the same order, rows that
// several bags want are wanted at about the same time: by the neighbours on a multiprocessor while L1 has them, by all
// others while L2 has them. A part is every row whose 512 neighbours have the same hash, so that hot rows, wherever they
// stand, spread over all parts. The order is a counting sort by one warp, always the same for the same bag.
//
// A bag of one list that asks for one row alone, as one of padding does, is made a list of that row, which counts so many times. To
// find out costs the others nothing, since nothing branches on it.
#pragma once

#include "../careful.cuh"
#include "gathered_rows.cuh"

namespace fused {
namespace large {

using gathered::kAll;
using gathered::kLanes;

constexpr int kList = 256;              // row numbers put in order at a time
constexpr int kEach = kList / kLanes;   // of them, those of one lane
constexpr int kParts = 16;              // finer parts cost more than they save
constexpr int kCounts = kParts * kEach;
static_assert(kCounts == 4 * kLanes, "a lane scans four counts");

// What is the same in all lanes, said in a way that the compiler knows it: then no branch on it can part them.
__device__ __forceinline__ int uniform(int value) { return __shfl_sync(kAll, value, 0); }
__device__ __forceinline__ bool uniform(bool value) { return __any_sync(kAll, value); }

// What a warp keeps in shared memory: the rows that it is adding up; and while it puts them in order, how many rows of each
// part a lane's j-th load found, [part][j].
struct alignas(16) List {
  static constexpr int kPadding = kLanes;  // the most that loads read beyond a list's end: row 0
  unsigned rows[kList + kPadding];
  unsigned counts[kCounts];
  float times;  // that each row counts: 1, unless they are all of a bag and the same
};

// The table whose rows are put in order.
struct OfTable {
  unsigned n_rows;
  unsigned flip;  // kParts - 1 where the bag passes over the table backwards, otherwise 0
};

// The next row numbers of a warp, from when they are asked for until they are a list.
template <typename index_t>
struct Ordered {
  int count;
  index_t index[kEach];

  __device__ __forceinline__ bool has(int j) const { return j * kLanes + static_cast<int>(threadIdx.x) < count; }
  __device__ __forceinline__ unsigned row(int j) const { return static_cast<unsigned>(index[j]); }
  __device__ __forceinline__ unsigned part(int j, const OfTable& of) const { return (row(j) >> 9) * 0x9e3779b1u >> 28 ^ of.flip; }

  // Where to read, and how many; `how_many` is at most kList.
  __device__ __forceinline__ void ask(const index_t* at, int how_many) {
    count = uniform(how_many);
#pragma unroll
    for (int j = 0; j < kEach; j++) {
      index[j] = 0;
      if (has(j)) index[j] = read_once(at + j * kLanes + threadIdx.x);
    }
  }

  // Puts them in the place of the list that the warp is done with; `whole`: they are all of a bag. A row number outside the table
  // is told through `wrong`, and row 0 stands in for it.
  __device__ __forceinline__ void list(const OfTable& of, List& mine, bool& wrong, bool whole) {
    const unsigned first = __shfl_sync(kAll, row(0), 0);
    bool alike = whole;
    unsigned place[kEach];  // in its part, of what this load found of it; then in the list
    __syncwarp();
    uint4& counts = reinterpret_cast<uint4*>(mine.counts)[threadIdx.x];
    counts = make_uint4(0, 0, 0, 0);
    __syncwarp();
#pragma unroll
    for (int j = 0; j < kEach; j++) {
      const bool known = static_cast<unsigned long long>(index[j]) < of.n_rows;
      wrong = wrong || (has(j) && !known);
      if (!known) index[j] = 0;
      alike = alike && (row(j) == first || !has(j));
      const unsigned beside = __match_any_sync(kAll, has(j) ? part(j, of) : kParts);
      place[j] = __popc(beside & ((1u << threadIdx.x) - 1));
      if (has(j) && place[j] == 0) mine.counts[part(j, of) * kEach + j] = __popc(beside);
    }
    const int times = count;
    alike = __all_sync(kAll, alike) && count > 0;
    if (alike) count = 1;  // the first lane's first, and the first of its part
    mine.times = alike ? static_cast<float>(times) : 1.0f;
    __syncwarp();
    mine.rows[count + threadIdx.x] = 0;
    const uint4 four = counts;
    const unsigned all = four.x + four.y + four.z + four.w;
    unsigned before = all;
#pragma unroll
    for (int apart = 1; apart < kLanes; apart *= 2) {
      const unsigned other = __shfl_up_sync(kAll, before, apart);
      if (threadIdx.x >= apart) before += other;
    }
    before -= all;
    counts = make_uint4(before, before + four.x, before + four.x + four.y, before + four.x + four.y + four.z);
    __syncwarp();
#pragma unroll
    for (int j = 0; j < kEach; j++) place[j] += mine.counts[part(j, of) * kEach + j];
#pragma unroll
    for (int j = 0; j < kEach; j++) {
      if (has(j)) mine.rows[place[j]] = row(j);
    }
    __syncwarp();
  }
};

}  // namespace large
}  // namespace fused
