// Large batches of bags of some length: every bag of a table passes over the table in the same order (order.cuh), all at
// the same time.
//
// One thread: 16 bytes of the rows that are its lane's. One warp: one bag at a time, a list of up to 256 rows in shared
// memory, several rows in flight, and the row numbers of the next list. One block: 16 warps with neighbouring bags; the
// block stays, one to a multiprocessor. Bags much longer than others wait until the end, where all warps of the block share
// each.
#pragma once

#include "accumulator.cuh"
#include "queue.cuh"

namespace fused {
namespace large {

template <typename Accumulator, int steps>
__device__ __forceinline__ void load(const Accumulator& accumulator, typename Accumulator::Vectors (&vectors)[steps], const List& list, int i) {
#pragma unroll
  for (int s = 0; s < steps; s++) accumulator.load(vectors[s], list, i + s * accumulator.rows_of_step());
}
// The rows of all vectors, or the first `left` of them.
template <bool some, typename Accumulator, int steps>
__device__ __forceinline__ void add(Accumulator& accumulator, const typename Accumulator::Vectors (&vectors)[steps], int left = 0) {
#pragma unroll
  for (int s = 0; s < steps; s++) accumulator.template add<some>(vectors[s], left - s * accumulator.rows_of_step());
}

// Whole groups of loads from the i-th row on.
template <int steps, typename Accumulator>
__device__ __forceinline__ void add_groups(Accumulator& accumulator, const List& list, int& i, int count) {
  const int rows = steps * accumulator.rows_of_step();
#pragma unroll 1
  for (; i + rows <= count; i += rows) {
    typename Accumulator::Vectors vectors[steps];
    load(accumulator, vectors, list, i);
    add<false>(accumulator, vectors);
  }
}

// Adds up the rows of a list: fewer at a time where memory is crowded. More rows in flight would then bring no more rows, but
// let some multiprocessors run ahead of others, and L2 lose what those behind still want.
template <typename Accumulator>
__device__ __forceinline__ void walk(const TablesArgs& args, Accumulator& accumulator, const List& list, int count, bool& crowded) {
  const unsigned begun = static_cast<unsigned>(clock());
  int i = 0;
  if (!crowded) add_groups<Accumulator::kFast>(accumulator, list, i, count);
  add_groups<Accumulator::kSlow>(accumulator, list, i, count);
  if (i < count) {
    typename Accumulator::Vectors vectors[Accumulator::kSlow];
    load(accumulator, vectors, list, i);
    add<true>(accumulator, vectors, count - i);
  }
  const int steps = count / accumulator.rows_of_step();
  if (steps >= 32) crowded = uniform(static_cast<int>(static_cast<unsigned>(clock()) - begun) > steps * static_cast<int>(args.crowded_clocks));  // fewer say nothing
}

// What a bag's rows add up to, written; and where there was none, a pause, while other warps of the block are on their way.
template <typename output_t, typename Accumulator>
__device__ __forceinline__ void finish(const TablesArgs& args, Block& block, Accumulator& accumulator, const Begun& bag) {
  if (uniform(bag.count >= 0)) {
    float4 sum = accumulator.finish();
    const float times = block.lists[threadIdx.y].times;  // of the bag's last list, and other than 1 where it has no other
    sum.x *= times, sum.y *= times, sum.z *= times, sum.w *= times;
    accumulator.store(static_cast<output_t*>(args.output) + bag.output, gathered::result(sum, block.scheduler.mode, bag.count));
  } else {
    volatile unsigned& finished = block.finished;  // for the sake of pace alone, so not for ever
    for (int i = 0; i < 1000 && finished + block.scheduler.warps / 2 <= bag.number; i++) __nanosleep(100);
  }
  if (threadIdx.x == 0) atomicAdd(&block.finished, 1);
}

// Bags that are no longer than `longest`. Of a bag one list after the other is added up; while one is, the row numbers of
// the next are read, be it of the same bag or of the next.
template <typename output_t, typename index_t, typename Accumulator>
__device__ __forceinline__ void look_up(const TablesArgs& args, Block& block, bool& wrong) {
  List& list = block.lists[threadIdx.y];
  Begun* const begun = block.begun[threadIdx.y];
  Accumulator accumulator(static_cast<int>(args.dim));
  Ordered<index_t> ordered;
  Queue<index_t> queue(args, block);
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
      at = queue.next(begun[which], table, wrong);
      left = max(begun[which].count, 0);
    }
    ordered.ask(at, min(left, kList));
    at += ordered.count, left -= ordered.count;
    walk(args, accumulator, list, count, crowded);
    if (last && !first) finish<output_t>(args, block, accumulator, begun[which ^ 1]);
    first = false;
    if (uniform(begun[which].count == Planned::kEnd)) return;
    ordered.list({static_cast<unsigned>(table.rows), flip}, list, wrong, last && left == 0);
    // Every other list goes backwards: L2 still has where the one before ended.
    flip ^= block.scheduler.to_each > 1 || left > 0 ? kParts - 1 : 0;
    if (last) {
      accumulator.begin(weights_of(args, table), static_cast<unsigned>(table.row_stride_bytes), queue.first_column(),
                  static_cast<int>(args.dim));
    }
  }
}

// Every longer bag, a slice to each warp.
template <typename output_t, typename index_t, typename Accumulator>
__device__ __forceinline__ void look_up_long(const TablesArgs& args, Block& block, bool& wrong) {
  const TileScheduler& scheduler = block.scheduler;
  List& list = block.lists[threadIdx.y];
  Accumulator accumulator(static_cast<int>(args.dim));
  Ordered<index_t> ordered;
  bool crowded = true;
#pragma unroll 1
  for (unsigned pass = 0; pass < scheduler.passes; pass++) {
    const unsigned place = scheduler.place(pass), bags = scheduler.bags(place);
#pragma unroll 1
    for (unsigned slot = threadIdx.x; slot - threadIdx.x < bags; slot += kLanes) {
      WorkItem item = {pass, scheduler.first(place) + slot, 0, false};
      const TableRows table = args.tables[scheduler.table(item)];
      lookup_int64 begin = 0, count = 0;
      if (slot < bags) {
        const index_t* const offset = scheduler.offset<index_t>(args, item);
        begin = offset[0], count = is_right(args, begin, offset[1]) ? offset[1] - begin : 0;  // what is wrong is known already
      }
#pragma unroll 1
      for (unsigned waiting = __ballot_sync(kAll, count > block.longest); waiting != 0; waiting &= waiting - 1) {
        const int lane = __ffs(waiting) - 1, total = static_cast<int>(__shfl_sync(kAll, count, lane));
        const int each = (total + kWarps - 1) / kWarps, from = min(static_cast<int>(threadIdx.y) * each, total);
        const index_t* const indices = static_cast<const index_t*>(args.indices) + __shfl_sync(kAll, begin, lane) + from;
        item.bag = scheduler.first(place) + slot - threadIdx.x + lane;
        accumulator.begin(weights_of(args, table), static_cast<unsigned>(table.row_stride_bytes), scheduler.first_column(item),
                    static_cast<int>(args.dim));
        OfTable of = {static_cast<unsigned>(table.rows), 0};
#pragma unroll 1
        for (int at = 0, end = min(each, total - from); at < end; at += kList) {
          ordered.ask(indices + at, min(end - at, kList));
          ordered.list(of, list, wrong, false);
          walk(args, accumulator, list, ordered.count, crowded);
          of.flip ^= kParts - 1;
        }
        float4 sum = accumulator.finish();
        __syncwarp();
        reinterpret_cast<float4*>(list.rows)[threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.y == 0) {
#pragma unroll 1
          for (int warp = 1; warp < kWarps; warp++) {
            const float4 more = reinterpret_cast<const float4*>(block.lists[warp].rows)[threadIdx.x];
            sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
          }
          accumulator.store(static_cast<output_t*>(args.output) + scheduler.output(args, item), gathered::result(sum, table.mode, total));
        }
        __syncthreads();
      }
    }
  }
}

// The block's bags with something wrong, once more and carefully.
template <typename output_t, typename index_t>
__device__ __forceinline__ void mend(const TablesArgs& args, const TileScheduler& scheduler) {
#pragma unroll 1
  for (unsigned pass = 0; pass < scheduler.passes; pass++) {
    const unsigned place = scheduler.place(pass);
    const TableRows table = args.tables[pass / scheduler.rounds];
    const bool tells = pass % scheduler.rounds == 0;  // the others of the bag's blocks mend it too, once it is theirs to write
#pragma unroll 1
    for (unsigned slot = threadIdx.y; slot < scheduler.bags(place); slot += kWarps) {
      mend_bag<float, output_t, index_t>(args, table, scheduler.first(place) + slot, tells);
    }
  }
}

template <typename output_t, typename index_t, typename Accumulator>
__device__ __forceinline__ void look_up_all(const TablesArgs& args, Block& block, bool& wrong) {
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    block.scheduler.make(args);
    // A bag follows another on one warp. One that would keep it much longer than the others waits.
    block.longest = static_cast<int>(min(max(4 * args.rows_per_bag, 2.0f * kList), 2e9f));
    block.finished = 0, block.long_bags = false;
  }
  __syncthreads();
  if (uniform(threadIdx.y < block.scheduler.warps)) look_up<output_t, index_t, Accumulator>(args, block, wrong);
  __syncthreads();
  if (uniform(block.long_bags)) look_up_long<output_t, index_t, Accumulator>(args, block, wrong);
  if (args.faults != nullptr && __syncthreads_or(wrong)) mend<output_t, index_t>(args, block.scheduler);
}

}  // namespace large
}  // namespace fused
