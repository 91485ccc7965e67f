// Large batches of bags of some length: every bag of a table passes over the table in the same order (order.cuh), all at
// the same time.
//
// One thread: 16 bytes of the rows that are its lane's. One warp: one bag at a time, a list of up to 256 rows in shared
// memory, several rows in flight, and the row numbers of the next list. One block: 16 warps with neighbouring bags; the
// block stays, one to a multiprocessor. Bags much longer than others wait until the end, where all warps of the block share
// each.
#pragma once

#include "adder.cuh"
#include "supply.cuh"

namespace fused {

// Clocks per step of a warp, of 1 KB, from which memory has nearly as much asked of it as it can give: about twice as many
// pass when 16 warps on every multiprocessor wait for memory alone. More rows in flight would then bring no more rows, but
// let some multiprocessors run ahead of others, and then L2 loses what those behind still want.
constexpr int kCrowded = 720;

template <typename Adder, int steps>
__device__ __forceinline__ void load(const Adder& adder, typename Adder::Piece (&piece)[steps], const List& list, int i) {
#pragma unroll
  for (int s = 0; s < steps; s++) adder.load(piece[s], list, i + s * adder.rows_of_step());
}
// The rows of all pieces, or the first `left` of them.
template <bool some, typename Adder, int steps>
__device__ __forceinline__ void add(Adder& adder, const typename Adder::Piece (&piece)[steps], int left = 0) {
#pragma unroll
  for (int s = 0; s < steps; s++) adder.template add<some>(piece[s], left - s * adder.rows_of_step());
}

// Whole groups of loads from the i-th row on.
template <int steps, typename Adder>
__device__ __forceinline__ void add_groups(Adder& adder, const List& list, int& i, int count) {
  const int rows = steps * adder.rows_of_step();
#pragma unroll 1
  for (; i + rows <= count; i += rows) {
    typename Adder::Piece piece[steps];
    load(adder, piece, list, i);
    add<false>(adder, piece);
  }
}

// Adds up the rows of a list.
template <typename Adder>
__device__ __forceinline__ void walk(Adder& adder, const List& list, int count, bool& crowded) {
  const unsigned begun = static_cast<unsigned>(clock());
  int i = 0;
  if (!crowded) add_groups<Adder::kFast>(adder, list, i, count);
  add_groups<Adder::kSlow>(adder, list, i, count);
  if (i < count) {
    typename Adder::Piece piece[Adder::kSlow];
    load(adder, piece, list, i);
    add<true>(adder, piece, count - i);
  }
  const int steps = count / adder.rows_of_step();
  if (steps >= 32) crowded = uniform(static_cast<int>(static_cast<unsigned>(clock()) - begun) > steps * kCrowded);  // fewer say nothing
}

// What a bag's rows add up to, written; and where there was none, a pause, while other warps of the block are on their way.
template <typename output_t, typename Adder>
__device__ __forceinline__ void finish(const TablesArgs& args, Block& block, Adder& adder, const Begun& bag) {
  if (uniform(bag.count >= 0)) {
    adder.store(static_cast<output_t*>(args.output) + bag.output, gathered::result(adder.finish(), args.mode, bag.count));
  } else {
    volatile unsigned& finished = block.finished;  // for the sake of pace alone, so not for ever
    for (int i = 0; i < 1000 && finished + block.share.warps / 2 <= bag.number; i++) __nanosleep(100);
  }
  if (threadIdx.x == 0) atomicAdd(&block.finished, 1);
}

// Bags that are no longer than `longest`. Of a bag one list after the other is added up; while one is, the row numbers of
// the next are read, be it of the same bag or of the next.
template <typename output_t, typename index_t, typename Adder>
__device__ __forceinline__ void look_up(const TablesArgs& args, Block& block, bool& wrong) {
  List& list = block.lists[threadIdx.y];
  Begun* const begun = block.begun[threadIdx.y];
  Adder adder(static_cast<int>(args.dim));
  Ordered<index_t> ordered;
  Supply<index_t> supply(args, block);
  TableRows table;
  const index_t* at = nullptr;  // of the bag whose row numbers are read, what is in no list yet
  int left = 0;                 // rows there
  unsigned which = 0, flip = 0;
  bool crowded = true, first = true;
  ordered.count = 0;
#pragma unroll 1
  while (true) {
    const int count = ordered.count;
    const bool last = uniform(left == 0);
    if (last) {
      which ^= 1;
      at = supply.next(begun[which], table, wrong);
      left = max(begun[which].count, 0);
    }
    ordered.ask(at, min(left, kList));
    at += ordered.count, left -= ordered.count;
    walk(adder, list, count, crowded);
    if (last && !first) finish<output_t>(args, block, adder, begun[which ^ 1]);
    first = false;
    if (uniform(begun[which].count == Planned::kEnd)) return;
    ordered.list({static_cast<unsigned>(table.rows), flip}, list, wrong);
    // Every other list goes backwards: L2 still has where the one before ended.
    flip ^= block.share.to_each > 1 || left > 0 ? kParts - 1 : 0;
    if (last) {
      adder.begin(static_cast<const char*>(table.weights), static_cast<unsigned>(table.row_stride_bytes), supply.first_column(),
                  static_cast<int>(args.dim));
    }
  }
}

// Every longer bag, a slice to each warp.
template <typename output_t, typename index_t, typename Adder>
__device__ __forceinline__ void look_up_long(const TablesArgs& args, Block& block, bool& wrong) {
  const Share& share = block.share;
  List& list = block.lists[threadIdx.y];
  Adder adder(static_cast<int>(args.dim));
  Ordered<index_t> ordered;
  bool crowded = true;
#pragma unroll 1
  for (unsigned pass = 0; pass < share.passes; pass++) {
    const unsigned place = share.place(pass), bags = share.bags(place);
#pragma unroll 1
    for (unsigned slot = threadIdx.x; slot - threadIdx.x < bags; slot += kLanes) {
      Turn turn = {pass, share.first(place) + slot, 0, false};
      const TableRows table = args.tables[share.table(turn)];
      lookup_int64 begin = 0, count = 0;
      if (slot < bags) {
        const index_t* const offset = share.offset<index_t>(args, turn);
        begin = offset[0], count = offset[1] - begin;
        if (!is_right(args, begin, count)) count = 0;  // told already
      }
#pragma unroll 1
      for (unsigned waiting = __ballot_sync(kAll, count > block.longest); waiting != 0; waiting &= waiting - 1) {
        const int lane = __ffs(waiting) - 1, total = static_cast<int>(__shfl_sync(kAll, count, lane));
        const int each = (total + kWarps - 1) / kWarps, from = min(static_cast<int>(threadIdx.y) * each, total);
        const index_t* const indices = static_cast<const index_t*>(args.indices) + __shfl_sync(kAll, begin, lane) + from;
        turn.bag = share.first(place) + slot - threadIdx.x + lane;
        adder.begin(static_cast<const char*>(table.weights), static_cast<unsigned>(table.row_stride_bytes), share.first_column(turn),
                    static_cast<int>(args.dim));
        OfTable of = {static_cast<unsigned>(table.rows), 0};
#pragma unroll 1
        for (int at = 0, end = min(each, total - from); at < end; at += kList) {
          ordered.ask(indices + at, min(end - at, kList));
          ordered.list(of, list, wrong);
          walk(adder, list, ordered.count, crowded);
          of.flip ^= kParts - 1;
        }
        float4 sum = adder.finish();
        __syncwarp();
        reinterpret_cast<float4*>(list.rows)[threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.y == 0) {
#pragma unroll 1
          for (int warp = 1; warp < kWarps; warp++) {
            const float4 more = reinterpret_cast<const float4*>(block.lists[warp].rows)[threadIdx.x];
            sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
          }
          adder.store(static_cast<output_t*>(args.output) + share.output(args, turn), gathered::result(sum, args.mode, total));
        }
        __syncthreads();
      }
    }
  }
}

template <typename output_t, typename index_t, typename Adder>
__device__ __forceinline__ void look_up_all(const TablesArgs& args, Block& block, bool& wrong) {
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    block.share.make(args);
    // A bag follows another on one warp. One that would keep it much longer than the others waits.
    const float average = static_cast<float>(args.n_indices) / static_cast<float>(args.n_bags * args.n_tables);
    block.longest = static_cast<int>(min(max(4 * average, 2.0f * kList), 2e9f));
    block.finished = 0, block.long_bags = false;
  }
  __syncthreads();
  if (uniform(threadIdx.y < block.share.warps)) look_up<output_t, index_t, Adder>(args, block, wrong);
  __syncthreads();
  if (uniform(block.long_bags)) look_up_long<output_t, index_t, Adder>(args, block, wrong);
}

}  // namespace fused
