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

// Rows for each team of lanes in a tile: the more, the less it costs to begin and end it; but every block should have some
// tiles, so that none waits long for the last one: as many as `kEnough` once teams have `kUsualRows` in each, and two at least.
constexpr float kMostRows = 96, kUsualRows = 48, kLeastRows = 8, kEnough = 12, kFewest = 2;

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
    // Rows of each table, and vectors of all of them together.
    float vectors = 0;
#pragma unroll 1
    for (unsigned t = thread(); t < args.n_tables; t += threads) {
      const index_t* const offset = static_cast<const index_t*>(args.offsets) + number_of(args, t) * args.n_bags;
      const lookup_int64 rows = offset[args.n_bags] - offset[0];
      first_[t] = static_cast<unsigned>(min(max(rows, lookup_int64(0)), args.n_indices));
      const Layout layout = layout_of<weight_t, output_t>(args, args.tables[t]);
      vectors += static_cast<float>(first_[t]) * (layout.rounds << layout.lanes_log);
    }
#pragma unroll
    for (int apart = kLanes / 2; apart > 0; apart /= 2) vectors += __shfl_xor_sync(gathered::kAll, vectors, apart);
    if (threadIdx.x == 0) of_warp_[threadIdx.y] = __float_as_uint(vectors);
    __syncthreads();
    vectors = 0;
#pragma unroll
    for (int warp = 0; warp < threads / kLanes; warp++) vectors += __uint_as_float(of_warp_[warp]);
    __syncthreads();
    const float each = vectors / (static_cast<float>(gridDim.x) * threads);  // for a lane, were there one tile a block
    const float tiles = max(ceilf(each / kMostRows), min(ceilf(each / kUsualRows), kEnough));
    const float rows_of_team = max(each / max(tiles, kFewest), kLeastRows);

    // Tiles of each table, and where they begin.
    unsigned all = 0;
#pragma unroll 1
    for (unsigned of = 0; of < args.n_tables; of += threads) {
      const unsigned t = of + thread();
      unsigned mine = 0;
      if (t < args.n_tables) {
        const Layout layout = layout_of<weight_t, output_t>(args, args.tables[t]);
        const float rows = min(rows_of_team * (threads >> layout.lanes_log), static_cast<float>(most_rows));
        const float bags = rows * args.n_bags / max(static_cast<float>(first_[t]), 1.0f);
        const unsigned n_bags = static_cast<unsigned>(args.n_bags);
        const unsigned of_tile = max(static_cast<unsigned>(min(bags, static_cast<float>(most_bags))), 1u);
        mine = ((n_bags - 1) / min(of_tile, n_bags) + 1) * layout.rounds;
      }
      unsigned until = mine;
#pragma unroll
      for (int apart = 1; apart < kLanes; apart *= 2) {
        const unsigned other = __shfl_up_sync(gathered::kAll, until, apart);
        if (threadIdx.x >= apart) until += other;
      }
      if (threadIdx.x == kLanes - 1) of_warp_[threadIdx.y] = until;
      __syncthreads();
      unsigned before = all;
#pragma unroll
      for (int warp = 0; warp < threads / kLanes; warp++) {
        if (warp < threadIdx.y) before += of_warp_[warp];
        all += of_warp_[warp];
      }
      if (t < args.n_tables) first_[t] = before + until - mine;
      __syncthreads();
    }
    if (thread() == 0) first_[args.n_tables] = count = all;
    __syncthreads();
  }

  // Makes of a number the tile, by one thread; what lies in device memory arrives once its copies have.
  template <typename index_t>
  __device__ __forceinline__ void find(const TablesArgs& args, unsigned number, unsigned near, Tile<index_t>& tile) const {
    tile.number = number;
    if (number >= count) return;
    unsigned which = near;
    if (first_[which + 1] <= number || first_[which] > number) {
      which = 0;
      for (unsigned step = 1u << (31 - __clz(static_cast<int>(args.n_tables))); step > 0; step /= 2) {
        if (which + step < args.n_tables && first_[which + step] <= number) which += step;
      }
    }
    const Layout layout = layout_of<weight_t, output_t>(args, args.tables[which]);
    const unsigned n_bags = static_cast<unsigned>(args.n_bags), rounds = layout.rounds;
    const unsigned each = (n_bags - 1) / ((first_[which + 1] - first_[which]) / rounds) + 1;
    tile.which = which, tile.round = (number - first_[which]) % rounds;
    tile.lanes_log = layout.lanes_log, tile.narrow = layout.narrow;
    tile.first = min((number - first_[which]) / rounds * each, n_bags), tile.last = min(tile.first + each, n_bags);
    const index_t* const offset = static_cast<const index_t*>(args.offsets) + number_of(args, which) * args.n_bags;
#pragma unroll
    for (int part = 0; part < sizeof(TableRows) / 16; part++) {
      copy_later(reinterpret_cast<uint4*>(&tile.table) + part, reinterpret_cast<const uint4*>(args.tables + which) + part);
    }
    copy_later(&tile.begin, offset + tile.first);
    copy_later(&tile.end, offset + tile.last);
  }

 private:
  __device__ __forceinline__ static unsigned thread() { return threadIdx.y * kLanes + threadIdx.x; }

  unsigned first_[kTables + 1];  // a table's first tile
  unsigned of_warp_[threads / kLanes];
};

}  // namespace stream
}  // namespace fused
