// Tables of any rows, widths and bag lengths, in one launch.
//
//   offsets ─► tiles (tiles.cuh) ─► row numbers of a tile, checked, in shared memory ─► teams of lanes ─► sums ─► output
//
// One thread: a vector of a row (vectors.cuh), added up in float32. One team: lanes that share a row, from one lane (four
// columns of float32) to a whole warp; each team adds up as many rows of the tile as every other, one after the other,
// whatever bags they are of, and writes a bag's sum when it has come to the bag's last row. A bag that is cut between
// teams is put together at the end of the tile: each team leaves what it has of the bag before its first end (`head`) and
// after its last (`tail`) in shared memory. One block: eight warps, a tile at a time; while its rows are fetched, the row
// numbers of the next are, and it is being planned which comes after that. The grid: blocks that stay, four to a
// multiprocessor. In flight: 32 warps with four or five loads each.
#pragma once

#include "launch.h"
#include "tiles.cuh"

namespace fused {
namespace stream {

constexpr int kThreads = launch::lookup_stream::kThreads, kWarps = launch::lookup_stream::kThreadsY;
constexpr int kLanesLog = log2_of(kLanes), kThreadsLog = log2_of(kThreads);
static_assert(launch::lookup_stream::kThreadsX == kLanes, "a row of a block's threads is a warp");
static_assert(1 << kThreadsLog == kThreads, "rows are dealt out to teams by shifts");
constexpr int kBags = 512;            // of a tile, at most
constexpr unsigned kEnds = 1u << 31;  // marks a row number: the last of its bag
template <typename weight_t>
constexpr int most_columns = Vector<weight_t, false>::kColumns;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 800
constexpr int kMostHalves = 960;  // four blocks have 164 KB of shared memory
#else
constexpr int kMostHalves = 1536;
#endif
template <typename weight_t>  // of a tile at a time: what is left is L1's
constexpr int most_rows = sizeof(weight_t) == 4 ? 1536 : sizeof(weight_t) == 2 ? kMostHalves : 960;

// Loads of a lane that are on their way together: as many as leave 32 warps of a multiprocessor their registers.
template <typename weight_t>
constexpr int in_flight = most_columns<weight_t> == 4 ? 5 : 4;

template <typename weight_t, typename output_t, typename index_t>
struct Block {
  static constexpr int kRows = most_rows<weight_t>, kColumns = most_columns<weight_t>;
  Tile<index_t> tiles[3];  // in turns: this one, the next, the one after that
  Tiles<weight_t, output_t, kThreads, kRows, kBags> all;

  index_t arriving[kRows];       // row numbers of the next tile, as they are
  index_t offsets[kBags + 1];    // and of its bags
  unsigned rows[kRows];          // of this tile
  unsigned ends[kBags + 1];      // of its bags, counted from the tile's first row; [0] is 0
  unsigned short first[kThreads];  // a team's first bag; kCut where others have rows of it before
  enum { kCut = 1 << 15 };

  float head[kColumns][kThreads], tail[kColumns][kThreads];
  float carry[kColumns][kLanes];  // of a bag that goes on in the tile's next rows
  bool ended[kThreads];           // whether a bag has ended in a team's rows
  bool wrong[2];                  // whether anything is wrong with the tile; in turns
};

// A tile's bags by `look_up_carefully`, all of them anew.
template <typename weight_t, typename output_t, typename index_t>
__device__ __forceinline__ void look_up_tile_carefully(const TablesArgs& args, const Tile<index_t>& tile) {
#pragma unroll 1
  for (unsigned bag = tile.first + threadIdx.y; bag < tile.last; bag += kWarps) {
    look_up_carefully<weight_t, output_t, index_t>(args, tile.table, bag);
  }
}

// This thread's part in `here` rows of a tile from its `at`-th on. To leave registers to rows, what can be read in shared
// memory again is not kept.
template <typename weight_t, typename output_t, typename index_t, bool narrow>
class Team {
  typedef Vector<weight_t, narrow> Kind;
  static constexpr int kColumns = Kind::kColumns, kInFlight = in_flight<weight_t>;
  typedef Block<weight_t, output_t, index_t> Shared;

 public:
  __device__ __forceinline__ Team(const TablesArgs& args, Shared& block, const Tile<index_t>& tile)
      : args_(args), block_(block), tile_(tile), lanes_log_(tile.lanes_log) {
    const unsigned vector = tile.round * kLanes + lane();
    columns_left_ = tile.table.dim - static_cast<int>(vector) * kColumns;
    // A lane beyond the last column loads the first ones along, which costs nothing, and its sum is left alone.
    weights_ = weights_of(args, tile.table) + (columns_left_ > 0 ? vector * sizeof(typename Kind::Word) : 0);
    output_ = static_cast<output_t*>(args.output) + tile.first * args.output_stride + tile.table.column + vector * kColumns;
  }

  // The team's rows, from its first on.
  __device__ __forceinline__ void add_up(unsigned i, unsigned end) {
    const unsigned first = i < end ? block_.first[team()] : 0;
    bag_ = first & (Shared::kCut - 1), cut_ = first & Shared::kCut;
    clear();
#pragma unroll 1
    for (; i + kInFlight <= end; i += kInFlight) take<true>(i, end);
    if (i < end) take<false>(i, end);
#pragma unroll
    for (int c = 0; c < kColumns; c++) block_.tail[c][thread()] = value(c);
    if (lane() == 0) block_.ended[team()] = bag_ != (first & (Shared::kCut - 1));
  }

  // Once all teams have added up: the bag that this one, which has rows, ended and others began.
  __device__ __forceinline__ void join(bool carried) {
    const unsigned first = block_.first[team()];
    if (!(first & Shared::kCut) || !block_.ended[team()]) return;
#pragma unroll
    for (int c = 0; c < kColumns; c++) sum_[c] = block_.head[c][thread()];
    biases_ = 0;
    add_tails(team(), carried);
    write_sum(first & (Shared::kCut - 1));
  }
  // What there is so far of the bag that goes on in the tile's next rows. By the first team, once all have joined.
  __device__ __forceinline__ void carry_on(bool carried) {
    clear();
    add_tails(kThreads >> lanes_log_, carried);
#pragma unroll
    for (int c = 0; c < kColumns; c++) block_.carry[c][thread()] = sum_[c];
  }

  __device__ __forceinline__ static unsigned thread() { return threadIdx.y * kLanes + threadIdx.x; }
  __device__ __forceinline__ unsigned team() const { return thread() >> lanes_log_; }
  __device__ __forceinline__ unsigned lane() const { return thread() & ((1u << lanes_log_) - 1); }  // of the team

 private:
  // The next rows, as many as are loaded together; `full`: there are as many.
  template <bool full>
  __device__ __forceinline__ void take(unsigned i, unsigned end) {
    typename Kind::Word word[kInFlight];
    unsigned row[kInFlight], scale[kInFlight];
    const unsigned row_bytes = static_cast<unsigned>(tile_.table.row_stride_bytes);
#pragma unroll
    for (int k = 0; k < kInFlight; k++) {
      // In the place of rows that are not there the last one once more: a load under a condition would be waited for.
      row[k] = block_.rows[full ? i + k : min(i + k, end - 1)];
      const unsigned number = row[k] & ~kEnds;
      load(word[k], weights_ + static_cast<unsigned long long>(row_bytes) * number);
      scale[k] = Kind::kQuantised ? __ldg(scales_of(args_, tile_.table) + number) : 0;
    }
    // No row has this number, but the compiler does not know: it would begin to widen the first row, and so wait for it,
    // before all others are asked for.
    if (Kind::kQuantised && row[0] == ~0u) return;
#pragma unroll
    for (int k = 0; k < kInFlight; k++) {
      if (!full && i + k >= end) break;
      float v[kColumns];
      Kind::widen(word[k], v);
      const float2 pair = gathered::low_high(scale[k], __half());
      if (Kind::kQuantised) biases_ += Kind::kTooMuch != 0 ? fmaf(-Kind::kTooMuch, pair.x, pair.y) : pair.y;
#pragma unroll
      for (int c = 0; c < kColumns; c++) sum_[c] = Kind::kQuantised ? fmaf(v[c], pair.x, sum_[c]) : sum_[c] + v[c];
      if (row[k] & kEnds) end_bag();
    }
  }

  __device__ __forceinline__ void end_bag() {
    if (cut_) {
#pragma unroll
      for (int c = 0; c < kColumns; c++) block_.head[c][thread()] = value(c);
      cut_ = false;
    } else {
      write_sum(bag_);
    }
    const unsigned end = block_.ends[++bag_];
#pragma unroll 1
    while (bag_ < tile_.last - tile_.first && block_.ends[bag_ + 1] == end) bag_++;  // empty ones
    clear();
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int c = 0; c < kColumns; c++) sum_[c] = 0;
    biases_ = 0;
  }
  __device__ __forceinline__ float value(int c) const { return Kind::kQuantised ? sum_[c] + biases_ : sum_[c]; }

  __device__ __forceinline__ void write_sum(unsigned bag) const {
    float v[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; c++) v[c] = value(c);
    if (tile_.table.mode == LOOKUP_MEAN) {
      // One division, not one a column: this is code for every row in flight.
      const float share = reciprocal(static_cast<float>(block_.ends[bag + 1] - block_.ends[bag]));
#pragma unroll
      for (int c = 0; c < kColumns; c++) v[c] *= share;
    }
    if (columns_left_ > 0) write<narrow>(output_ + bag * args_.output_stride, v, columns_left_);
  }

  // The tails of the teams before this one, back to the last in which a bag ended.
  __device__ __forceinline__ void add_tails(int team, bool carried) {
#pragma unroll 1
    while (--team >= 0) {
#pragma unroll
      for (int c = 0; c < kColumns; c++) sum_[c] += block_.tail[c][(team << lanes_log_) + lane()];
      if (block_.ended[team]) return;
    }
    if (!carried) return;
#pragma unroll
    for (int c = 0; c < kColumns; c++) sum_[c] += block_.carry[c][lane()];
  }

  const TablesArgs& args_;
  Shared& block_;
  const Tile<index_t>& tile_;
  const unsigned lanes_log_;
  int columns_left_;
  const char* weights_;
  output_t* output_;
  unsigned bag_;  // of the tile's: that whose rows are being added up
  bool cut_;      // others have rows of it before
  float sum_[kColumns], biases_;
};

// The rows of a tile from its `at`-th on are in place: their sums. `more`: the tile has further rows.
template <typename weight_t, typename output_t, typename index_t, bool narrow>
__device__ __forceinline__ void look_up_rows(const TablesArgs& args, Block<weight_t, output_t, index_t>& block, const Tile<index_t>& tile,
                                             unsigned at, unsigned here, unsigned each, bool more) {
  Team<weight_t, output_t, index_t, narrow> team(args, block, tile);
  const unsigned begin = min(team.team() * each, here);
  team.add_up(begin, min(begin + each, here));
  __syncthreads();
  if (team.team() * each < here) team.join(at > 0);
  if (!more) return;
  __syncthreads();
  if (team.team() == 0) team.carry_on(at > 0);
}

template <typename weight_t, typename output_t, typename index_t>
class Stream {
  typedef Block<weight_t, output_t, index_t> Shared;
  static constexpr int kRows = Shared::kRows;
  static constexpr unsigned kPlanner = kThreads - kLanes;  // of the warp that marks the fewest bags

 public:
  __device__ __forceinline__ Stream(const TablesArgs& args, Shared& block)
      : args_(args), block_(block), thread_(threadIdx.y * kLanes + threadIdx.x) {}

  // Whether all went well; otherwise something was wrong, and nobody counts what.
  __device__ __forceinline__ bool look_up() {
    block_.all.template deal_out<index_t>(args_);
    unsigned ticket = 0;  // the planner's: which tile comes after those that are planned
    if (threadIdx.x == 0 && threadIdx.y < 2) {
      const unsigned number = blockIdx.x + threadIdx.y * gridDim.x, which = block_.all.table_of(args_, number, 0);
      block_.all.find(args_, number, which, args_.tables[which].dim, args_.tables[which].number, block_.tiles[threadIdx.y]);
      block_.wrong[threadIdx.y] = false;
    }
    if (thread_ == 0) block_.ends[0] = 0;
    if (thread_ == kPlanner) ticket = next_ticket();
    wait_for_copies();
    __syncthreads();
    fetch(block_.tiles[0], 0);
    bool turn = false;
    unsigned at = 0;
#pragma unroll 1
    for (int now = 0; block_.tiles[now].number < block_.all.count; turn = !turn) {
      const Tile<index_t>& tile = block_.tiles[now];
      const unsigned rows = rows_of(tile), here = min(rows - at, static_cast<unsigned>(kRows));
      const unsigned teams_log = kThreadsLog - tile.lanes_log;
      unsigned each = (here + (1u << teams_log) - 1) >> teams_log;
      if (tile.lanes_log < kLanesLog) each |= 1;  // several teams of a warp read row numbers that far apart: from different banks
      // Which tile comes after the next is planned while bag ends are marked, for which its table is asked for before.
      const bool plans = thread_ == kPlanner && at == 0;
      const int next = now == 2 ? 0 : now + 1;
      unsigned which = 0;
      int dim = 0, number = 0;
      if (plans && ticket < block_.all.count) {
        which = block_.all.table_of(args_, ticket, block_.tiles[next].which);
        dim = args_.tables[which].dim, number = args_.tables[which].number;
      }
      wait_for_copies();
      check_rows(tile, here, turn);
      __syncthreads();
      if (plans) {
        block_.all.find(args_, ticket, which, dim, number, block_.tiles[next == 2 ? 0 : next + 1]);
        ticket = next_ticket();
      }
      if (thread_ == 0) block_.wrong[!turn] = false;
      mark_ends(tile, at, here, each, turn);
      if (at == 0) clear_empty(tile);
      __syncthreads();

      const bool wrong = block_.wrong[turn];
      if (wrong && args_.faults == nullptr) return false;  // the grid ends; nobody needs tickets any more
      const bool more = !wrong && at + here < rows;
      const int then = more ? now : next;
      fetch(block_.tiles[then], more ? at + here : 0);
      if (wrong) {
        if (tile.round == 0) look_up_tile_carefully<weight_t, output_t>(args_, tile);
        __syncthreads();
      } else if (tile.narrow) {
        look_up_rows<weight_t, output_t, index_t, true>(args_, block_, tile, at, here, each, more);
      } else {
        look_up_rows<weight_t, output_t, index_t, false>(args_, block_, tile, at, here, each, more);
      }
      now = then, at = more ? at + here : 0;
    }
    if (thread_ == kPlanner) give_back();
    return true;
  }

 private:
  // Tiles beyond the first two of each block go to whoever is free: so all blocks stay at about the same place of the same
  // table, though some tiles take longer than others. The last block to end leaves the counter as it was found.
  __device__ __forceinline__ unsigned next_ticket() const { return 2 * gridDim.x + atomicAdd(&args_.tickets->next, 1u); }
  __device__ __forceinline__ void give_back() const {
    __threadfence();  // the last ticket, which nobody waits for, has been taken
    if (atomicAdd(&args_.tickets->ended, 1u) == gridDim.x - 1) args_.tickets->next = args_.tickets->ended = 0;
  }

  __device__ __forceinline__ bool is_right(const Tile<index_t>& tile) const { return fused::is_right(args_, tile.begin, tile.end); }
  __device__ __forceinline__ unsigned rows_of(const Tile<index_t>& tile) const {
    return is_right(tile) ? static_cast<unsigned>(tile.end - tile.begin) : 0;
  }

  // Asks for the row numbers of a tile from its `at`-th row on, and for the offsets of its bags.
  __device__ __forceinline__ void fetch(const Tile<index_t>& tile, unsigned at) {
    if (tile.number >= block_.all.count) return;
    const unsigned here = min(rows_of(tile) - at, static_cast<unsigned>(kRows));
    const index_t* const indices = static_cast<const index_t*>(args_.indices) + tile.begin + at;
#pragma unroll 4
    for (unsigned i = thread_; i < here; i += kThreads) copy_later(&block_.arriving[i], indices + i);
    const index_t* const offsets = static_cast<const index_t*>(args_.offsets) + tile.table.number * args_.n_bags + tile.first;
#pragma unroll 2
    for (unsigned bag = thread_; bag <= tile.last - tile.first; bag += kThreads) copy_later(&block_.offsets[bag], offsets + bag);
  }

  // Takes over the row numbers that have arrived, each thread its own.
  __device__ __forceinline__ void check_rows(const Tile<index_t>& tile, unsigned here, bool turn) {
#pragma unroll 4
    for (unsigned i = thread_; i < here; i += kThreads) {
      const index_t index = block_.arriving[i];
      const bool known = static_cast<unsigned long long>(index) < static_cast<unsigned long long>(tile.table.rows);
      block_.rows[i] = known ? static_cast<unsigned>(index) : 0;
      if (!known) block_.wrong[turn] = true;
    }
    if (!is_right(tile)) block_.wrong[turn] = true;
  }

  // Marks where bags end among the rows, and with which bag each team begins.
  __device__ __forceinline__ void mark_ends(const Tile<index_t>& tile, unsigned at, unsigned here, unsigned each, bool turn) {
    const unsigned rows = rows_of(tile);
    const unsigned reciprocal = each > 1 ? 0xffffffffu / each + 1 : 0;  // for exact quotients of numbers below 2^16
#pragma unroll 1
    for (unsigned bag = thread_; bag < tile.last - tile.first; bag += kThreads) {
      const lookup_int64 begin = block_.offsets[bag] - tile.begin, end = block_.offsets[bag + 1] - tile.begin;
      if (begin < 0 || end < begin || end > rows) {
        block_.wrong[turn] = true;
        continue;
      }
      const unsigned from = static_cast<unsigned>(begin), to = static_cast<unsigned>(end);
      block_.ends[bag + 1] = to;
      if (from == to) continue;
      if (to - at - 1 < here) block_.rows[to - at - 1] |= kEnds;
      if (to <= at || from >= at + here) continue;
      const unsigned low = max(from, at) - at, high = min(to - at, here);
      unsigned team = each > 1 ? __umulhi(low + each - 1, reciprocal) : low;
#pragma unroll 1
      for (unsigned begins = team * each; begins < high; begins += each) block_.first[team++] = bag | (begins + at != from ? Shared::kCut : 0);
    }
  }

  // Zeros for the tile's empty bags, a team of lanes for each. Once all offsets have arrived.
  __device__ __forceinline__ void clear_empty(const Tile<index_t>& tile) const {
    if (tile.round != 0) return;
    const unsigned lanes = 1u << tile.lanes_log, lane = thread_ & (lanes - 1);
#pragma unroll 1
    for (unsigned first = threadIdx.y * kLanes; first < tile.last - tile.first; first += kThreads) {
      const unsigned mine = first + threadIdx.x;
      unsigned empty = __ballot_sync(gathered::kAll, mine < tile.last - tile.first && block_.offsets[mine] == block_.offsets[mine + 1]);
#pragma unroll 1
      for (unsigned of = 0; of < kLanes && empty >> of != 0; of += kLanes / lanes) {
        const unsigned which = of + threadIdx.x / lanes;
        if (!(empty >> which & 1)) continue;
        output_t* const output = static_cast<output_t*>(args_.output) + (tile.first + first + which) * args_.output_stride + tile.table.column;
        if (tile.narrow) {
#pragma unroll 1
          for (int column = lane; column < tile.table.dim; column += lanes) output[column] = static_cast<output_t>(0.0f);
        } else {
          const float zeros[4] = {};
#pragma unroll 1
          for (int column = lane * 4; column < tile.table.dim; column += lanes * 4) write<false>(output + column, zeros, 4);
        }
      }
    }
  }

  const TablesArgs& args_;
  Shared& block_;
  const unsigned thread_;
};

}  // namespace stream
}  // namespace fused
