// Which bags a block of `lookup_large` looks up, and in what order.
//
// Blocks stay, one to a multiprocessor, and go through tables one after the other, so that at any time all of them are at
// about the same place of the same table. Of each table a block takes neighbouring bags, as many as every other block or
// one more; which ones changes from table to table, since a sample with many rows in one table often has many in all.
#pragma once

#include "launch.h"
#include "order.cuh"

namespace fused {
namespace large {

constexpr int kWarps = launch::lookup_large::kThreadsY;
static_assert(launch::lookup_large::kThreadsX == kLanes, "a row of a block's threads is a warp");

// A bag, and which 128 columns of it. Columns come in rounds: all tables' bags over a table's first columns, then over the
// next, so a round is as good as a table of its own.
struct WorkItem {
  unsigned pass;  // table * rounds + round; `passes` or more where there is nothing left
  unsigned bag;
  unsigned number;
  bool pause;     // nothing to do, while the other warps have
};

struct TileScheduler {
  unsigned rounds;  // of 128 columns, of a table
  unsigned passes;  // over tables, rounds counted
  unsigned least;   // bags of a pass that every block has
  unsigned more;    // blocks that have one more
  unsigned warps;   // that look up bags of their own
  unsigned slots;   // items of a pass
  unsigned at_once; // passes
  unsigned to_each; // items of a pass for each warp
  int first_column_of_output;
  int mode;                   // of all tables

  __device__ __forceinline__ void make(const TablesArgs& args) {
    first_column_of_output = args.tables[0].column, mode = args.tables[0].mode;
    rounds = static_cast<unsigned>(args.dim + gathered::kRound - 1) / gathered::kRound;
    passes = static_cast<unsigned>(args.n_tables) * rounds;
    least = static_cast<unsigned>(args.n_bags) / gridDim.x;
    more = static_cast<unsigned>(args.n_bags) % gridDim.x;
    const unsigned most = least + (more != 0);
    // Several passes at a time where a block has few bags; several bags of a pass to a warp, and as many to each, where it
    // has more than warps.
    to_each = (most + kWarps - 1) / kWarps;
    at_once = max(kWarps / most, 1u);
    const unsigned of_pass = (most + to_each - 1) / to_each;  // warps
    warps = of_pass * at_once;
    slots = of_pass * to_each;
  }

  // The block's place in a pass, and which bags those are.
  __device__ __forceinline__ unsigned place(unsigned pass) const { return (blockIdx.x + pass * (gridDim.x * 5 / 8)) % gridDim.x; }
  __device__ __forceinline__ unsigned first(unsigned place) const { return place * least + min(place, more); }
  __device__ __forceinline__ unsigned bags(unsigned place) const { return least + (place < more); }

  // The n-th item of a warp.
  __device__ __forceinline__ WorkItem item(unsigned warp, unsigned n) const {
    const unsigned of_pass = slots / to_each, pass = n / to_each * at_once + warp / of_pass;
    const unsigned slot = n % to_each * of_pass + warp % of_pass, mine = place(pass);
    return {pass, first(mine) + slot, pass * slots + slot, slot >= bags(mine)};
  }

  __device__ __forceinline__ unsigned table(const WorkItem& item) const { return item.pass / rounds; }
  __device__ __forceinline__ int first_column(const WorkItem& item) const { return item.pass % rounds * gathered::kRound; }
  // Where its bag begins in the indices; the next says where it ends.
  template <typename index_t>
  __device__ __forceinline__ const index_t* offset(const TablesArgs& args, const WorkItem& item) const {
    return static_cast<const index_t*>(args.offsets) + number_of(args, table(item)) * args.n_bags + item.bag;
  }
  // From the output's first element to the bag's first of the table.
  __device__ __forceinline__ lookup_int64 output(const TablesArgs& args, const WorkItem& item) const {
    return item.bag * args.output_stride + first_column_of_output + table(item) * args.dim;
  }
};

}  // namespace large
}  // namespace fused
