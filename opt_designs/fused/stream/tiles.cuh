// How the work of a launch is dealt out: by rows to fetch, whatever table they are of.
//
// A tile is some neighbouring bags of one table (of wide rows, and some of their columns), as many as hold some rows on average, more of narrow rows and fewer of wide
// ones; how many is worked out by every block for itself from where each table's bags begin, for lengths are known on the
// device alone. Tiles are numbered table after table, and blocks take them in that order, so that all blocks are at about the
// same place of the same table, as L2 wants it.
#pragma once

#include "../careful.cuh"
#include "launch.h"
#include "vectors.cuh"

namespace fused {
namespace stream {

constexpr int kTables = launch::lookup_stream::kTablesAtOnce;  // of a launch, at most

// Rows for each team of lanes in a tile: the more, the less it costs to begin and end it; the fewer, the less a block waits for
// the last one. So a block gets one tile as long as each team has less than twice `usual_rows` in it, and up to `kEnough`.
constexpr float kMostRows = 96, kLeastRows = 8, kEnough = 12;
template <typename weight_t>
constexpr float usual_rows = sizeof(weight_t) == 2 ? 64 : 48;

template <typename index_t>
struct alignas(16) Tile {
  TableRows table;
  index_t begin, end;  // of its rows in the indices, as the offsets say
  unsigned number;     // among the launch's tiles
  unsigned which;      // table of the launch
  unsigned round;      // of wide rows: the columns that a warp has vectors of at a time
  unsigned lanes_log;  // see Layout
  bool narrow;
  unsigned first, last;  // of its bags; the latter is the next tile's
};

template <typename weight_t, typename output_t, int threads, int most_rows, int most_bags>
class Tiles {
 public:
  unsigned count;

  // By all threads of the block, which share this.
  template <typename index_t>
  __device__ __forceinline__ void deal_out(const TablesArgs& args) {
    if (args.n_tables <= threads) {
      deal_out_to_threads<index_t, 1>(args);
    } else {
      deal_out_to_threads<index_t, (kTables + threads - 1) / threads>(args);
    }
  }

  // The table of a tile; `near`: one that is not far from it.
  __device__ __forceinline__ unsigned table_of(const TablesArgs& args, unsigned number, unsigned near) const {
    if (first_[near] <= number && number < first_[near + 1]) return near;
    unsigned which = 0;
    for (unsigned step = 1u << (31 - __clz(static_cast<int>(args.n_tables))); step > 0; step /= 2) {
      if (which + step < args.n_tables && first_[which + step] <= number) which += step;
    }
    return which;
  }

  // Makes of a number the tile, by one thread; what lies in device memory arrives once its copies have. Of its table, the
  // `which`-th: the columns, and the number among all tables.
  template <typename index_t>
  __device__ __forceinline__ void find(const TablesArgs& args, unsigned number, unsigned which, int dim, int among_all,
                                       Tile<index_t>& tile) const {
    tile.number = number;
    if (number >= count) return;
    const Layout layout = layout_of<weight_t>(narrow_[which], dim);
    const unsigned n_bags = static_cast<unsigned>(args.n_bags), rounds = layout.rounds;
    const unsigned each = (n_bags - 1) / ((first_[which + 1] - first_[which]) / rounds) + 1;
    tile.which = which, tile.round = (number - first_[which]) % rounds;
    tile.lanes_log = layout.lanes_log, tile.narrow = layout.narrow;
    tile.first = min((number - first_[which]) / rounds * each, n_bags), tile.last = min(tile.first + each, n_bags);
    const index_t* const offset = static_cast<const index_t*>(args.offsets) + static_cast<lookup_int64>(among_all) * args.n_bags;
#pragma unroll
    for (int part = 0; part < sizeof(TableRows) / 16; part++) {
      copy_later(reinterpret_cast<uint4*>(&tile.table) + part, reinterpret_cast<const uint4*>(args.tables + which) + part);
    }
    copy_later(&tile.begin, offset + tile.first);
    copy_later(&tile.end, offset + tile.last);
  }

 private:
  // What there was and what the block's threads up to this one add; then there is what all of them add. By all threads.
  template <typename number>
  __device__ __forceinline__ number up_to_here(number mine, number& there) {
    number until = mine;
#pragma unroll
    for (int apart = 1; apart < kLanes; apart *= 2) {
      const number other = __shfl_up_sync(gathered::kAll, until, apart);
      if (threadIdx.x >= apart) until += other;
    }
    number* const of_warp = reinterpret_cast<number*>(of_warp_);
    if (threadIdx.x == kLanes - 1) of_warp[threadIdx.y] = until;
    __syncthreads();
    until += there;
#pragma unroll
    for (int warp = 0; warp < threads / kLanes; warp++) {
      if (warp < threadIdx.y) until += of_warp[warp];
      there += of_warp[warp];
    }
    __syncthreads();
    return until;
  }

  // `each_thread`: tables of a thread, whose rows are asked for together.
  template <typename index_t, int each_thread>
  __device__ __forceinline__ void deal_out_to_threads(const TablesArgs& args) {
    // Rows of each table, and vectors of all of them together.
    float rows[each_thread];
    Layout layout[each_thread];
#pragma unroll
    for (int k = 0; k < each_thread; k++) {
      const unsigned t = k * threads + thread(), known = min(t, static_cast<unsigned>(args.n_tables) - 1);
      const TableRows table = args.tables[known];
      const index_t* const offset = static_cast<const index_t*>(args.offsets) + table.number * args.n_bags;
      const lookup_int64 there = min(max(static_cast<lookup_int64>(offset[args.n_bags] - offset[0]), lookup_int64(0)), args.n_indices);
      rows[k] = t == known ? static_cast<float>(there) : 0;
      layout[k] = layout_of<weight_t>(is_narrow<weight_t, output_t>(args, table), table.dim);
      if (t == known) narrow_[t] = layout[k].narrow;
    }
    float vectors = 0;
#pragma unroll
    for (int k = 0; k < each_thread; k++) up_to_here(rows[k] * (layout[k].rounds << layout[k].lanes_log), vectors);
    const float each = vectors / (static_cast<float>(gridDim.x) * threads);  // for a lane, were there one tile a block
    const float of_block = max(max(ceilf(each / kMostRows), min(floorf(each / usual_rows<weight_t>), kEnough)), 1.0f);
    // A table may have one tile more, of what is left over. Unless tables are many, there are to be no more tiles with these than
    // blocks have in so many rounds, or all would wait for the few in one round more.
    const float tiles = of_block * gridDim.x - (args.n_tables < gridDim.x / 2 ? args.n_tables : 0);
    const float rows_of_team = max(vectors / (tiles * threads), kLeastRows);

    // Tiles of each table, and where they begin.
    unsigned all = 0;
#pragma unroll
    for (int k = 0; k < each_thread; k++) {
      const unsigned t = k * threads + thread(), n_bags = static_cast<unsigned>(args.n_bags);
      const float bags_of_a_row = args.n_bags / max(rows[k], 1.0f);
      const float bags = min(ceilf(rows_of_team * (threads >> layout[k].lanes_log) * bags_of_a_row), most_rows * bags_of_a_row);
      const unsigned of_tile = max(static_cast<unsigned>(min(bags, static_cast<float>(most_bags))), 1u);
      const unsigned mine = t < args.n_tables ? ((n_bags - 1) / min(of_tile, n_bags) + 1) * layout[k].rounds : 0;
      const unsigned end = up_to_here(mine, all);
      if (t < args.n_tables) first_[t] = end - mine;
    }
    if (thread() == 0) first_[args.n_tables] = count = all;
    __syncthreads();
  }

  __device__ __forceinline__ static unsigned thread() { return threadIdx.y * kLanes + threadIdx.x; }

  unsigned first_[kTables + 1];  // a table's first tile
  bool narrow_[kTables];
  unsigned of_warp_[threads / kLanes];
};

}  // namespace stream
}  // namespace fused
