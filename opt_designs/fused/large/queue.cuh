// What a warp is going to look up: it plans some bags at a time, a lane each, since to find out where a bag begins and how
// long it is takes as long for one as for all.
#pragma once

#include "tile_scheduler.cuh"

namespace fused {
namespace large {

// A bag to come.
struct Planned {
  lookup_int64 begin;  // in the indices; -1: offsets that are wrong
  int count;           // rows; or one of these
  unsigned bag;
  unsigned pass;
  unsigned number;     // of the item
  enum { kPause = -1, kEnd = -2, kWaits = -3 };
};
constexpr int kPlan = 8;

// A bag that is being looked up: what is needed once its rows are added up.
struct Begun {
  lookup_int64 output;  // from the output's first element on
  int count;            // as above
  unsigned number;
};

// What the warps of a block share, and what each of them keeps here to leave registers to rows.
struct Block {
  List lists[kWarps];
  Planned plans[kWarps][kPlan];
  Begun begun[kWarps][2];  // by turns the bag that is added up, and the one whose row numbers are read
  TileScheduler scheduler;
  int longest;        // rows of a bag that its warp looks up alone
  unsigned finished;  // turns
  bool long_bags;     // some wait for the end
};

template <typename index_t>
class Queue {
 public:
  __device__ __forceinline__ Queue(const TablesArgs& args, Block& block) : args_(args), block_(block) {}

  // The next bag for this warp: returns where its row numbers begin. A bag that waits for the end is passed over.
  __device__ __forceinline__ const index_t* next(Begun& begun, TableRows& table, bool& wrong) {
    Planned* const plan = block_.plans[threadIdx.y];
    do {
      if (done_ % kPlan == 0) make(plan, wrong);
      done_++;
    } while (uniform(plan[(done_ - 1) % kPlan].count == Planned::kWaits));
    const Planned& bag = plan[(done_ - 1) % kPlan];
    const unsigned which = block_.scheduler.rounds == 1 ? bag.pass : bag.pass / block_.scheduler.rounds;
    begun.output = bag.bag * args_.output_stride + block_.scheduler.first_column_of_output + which * args_.dim;
    begun.count = bag.count, begun.number = bag.number;
    first_column_ = (bag.pass - which * block_.scheduler.rounds) * gathered::kRound;
    if (bag.count != Planned::kEnd) table = args_.tables[which];
    return indices() + bag.begin;
  }
  __device__ __forceinline__ int first_column() const { return first_column_; }

 private:
  __device__ __forceinline__ const index_t* indices() const { return static_cast<const index_t*>(args_.indices); }

  __device__ __forceinline__ void make(Planned* plan, bool& wrong) {
    const TileScheduler& scheduler = block_.scheduler;
    Planned mine = {0, Planned::kEnd, 0, 0, 0};
    if (threadIdx.x < kPlan) {
      const WorkItem item = scheduler.item(threadIdx.y, done_ + threadIdx.x);
      mine.bag = item.bag, mine.pass = item.pass, mine.number = item.number;
      if (item.pass < scheduler.passes) {
        mine.count = Planned::kPause;
        if (!item.pause) {
          const index_t* const offset = scheduler.offset<index_t>(args_, item);
          const lookup_int64 begin = offset[0], end = offset[1];
          const bool right = is_right(args_, begin, end);
          wrong = wrong || !right;
          mine.begin = begin, mine.count = right ? static_cast<int>(end - begin) : 0;
          if (mine.count > block_.longest) {
            mine.count = Planned::kWaits;
            block_.long_bags = true;
            atomicAdd(&block_.finished, 1);
          }
        }
      }
    }
    __syncwarp();
    if (threadIdx.x < kPlan) plan[threadIdx.x] = mine;
    __syncwarp();
  }

  const TablesArgs& args_;
  Block& block_;
  unsigned done_ = 0;
  int first_column_ = 0;
};

}  // namespace large
}  // namespace fused
