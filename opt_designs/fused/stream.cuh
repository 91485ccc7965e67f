// The rows of neighbouring short bags, one after the other, for a team of lanes: what is known of bags and rows is read for
// as many of them as the team has lanes, a lane each, and ahead of its need. Teams of a warp keep step.
#pragma once

#include "gathered_rows.cuh"

namespace fused {

using gathered::kAll;
using gathered::kLanes;

constexpr int kLong = 128;  // rows from which a bag is no part of a stream

// As in PyTorch, an offset is wrong where it descends or leaves the indices.
__device__ __forceinline__ bool is_right(const TablesArgs& args, lookup_int64 begin, lookup_int64 count) {
  return begin >= 0 && count >= 0 && begin + count <= args.n_indices && count <= 0x7fffffff;
}

// A team has `fixed` lanes, or where that is 0 as many as it is told: a power of two.
template <typename index_t, int fixed>
class Stream {
 public:
  // The bags from `first` to `end` of the block's table, for a team of `across` lanes.
  __device__ __forceinline__ Stream(const TablesArgs& args, int across, unsigned first, unsigned end)
      : args_(args), across_(fixed ? fixed : across), end_(end), group_(first), ahead_(first) {
    if (first < end) limit_ = min(offset(end), static_cast<int>(args.n_indices));
    read_bags_ahead();
  }

  // Takes teams that have read all they might to what comes next. Whether any has rows left.
  __device__ __forceinline__ bool more(unsigned n_rows) {
    while (true) {
      const bool idle = at_ == stop_ && (rest_ != 0 || ahead_ < end_);
      if (!__any_sync(kAll, idle)) break;
      const bool fresh = idle && rest_ == 0;
      if (fresh) {
        group_ = ahead_, ahead_ += across();
        const bool right = ahead_begin_ >= 0 && ahead_end_ >= ahead_begin_ && ahead_end_ <= limit_;
        begin_ = ahead_begin_, count_ = right && ahead_end_ - ahead_begin_ < kLong ? ahead_end_ - ahead_begin_ : -1;
        read_bags_ahead();
      }
      const unsigned short_ones = of_team(__ballot_sync(kAll, count_ >= 0));
      if (fresh) rest_ = short_ones;
      // Of the bags that are left the first ones, as far as their rows follow each other.
      const int start = max(__ffs(rest_) - 1, 0);
      const unsigned bags = rest_ >> start & (rest_ >> start ^ ((rest_ >> start) + 1));
      const int last = max(start + __popc(bags) - 1, 0);
      const int from = __shfl_sync(kAll, begin_, start, across()), to = __shfl_sync(kAll, begin_ + count_, last, across());
      if (idle && bags != 0) {
        rest_ &= ~(bags << start);
        if (from != at_ || window_ < 0) {
          at_ = from, window_ = from - across();
          ahead_index_ = index(at_ + lane());
        }
        stop_ = to;
        my_stop_ = count_ > 0 && lane() >= start && lane() <= last ? begin_ + count_ : -1;
      }
    }
    if (at_ < stop_ && at_ == window_ + across()) {
      known_ = static_cast<unsigned long long>(ahead_index_) < n_rows;
      row_ = known_ ? static_cast<unsigned>(ahead_index_) : 0;
      window_ += across();
      ahead_index_ = index(window_ + across() + lane());
    }
    return __any_sync(kAll, at_ < stop_);
  }

  // How many rows there are to be taken at once.
  __device__ __forceinline__ int here(int at_most) const { return min(min(stop_, window_ + across()) - at_, at_most); }
  // The k-th of them. One outside the table is told when they are taken, and the first stands in for it.
  __device__ __forceinline__ unsigned row(int k) const { return __shfl_sync(kAll, row_, at_ - window_ + k, across()); }
  // The bag whose last row it is, or -1.
  __device__ __forceinline__ int ended(int k) const {
    const unsigned bits = of_team(__ballot_sync(kAll, my_stop_ == at_ + k + 1));
    return bits != 0 ? static_cast<int>(group_) + __ffs(bits) - 1 : -1;
  }
  __device__ __forceinline__ void take(int rows, bool& wrong) {
    wrong = wrong || (!known_ && static_cast<unsigned>(window_ + lane() - at_) < static_cast<unsigned>(rows));
    at_ += rows;
  }

 private:
  __device__ __forceinline__ int across() const { return fixed ? fixed : across_; }
  __device__ __forceinline__ int lane() const { return fixed == kLanes ? threadIdx.x : threadIdx.x % across(); }
  __device__ __forceinline__ unsigned of_team(unsigned bits) const {
    if (fixed == kLanes) return bits;
    return bits >> (threadIdx.x - lane()) & (0xffffffffu >> (kLanes - across()));
  }
  // In 32 bits, which a special kernel's lookups fit into; wrong ones that seem to are found by `look_after`.
  __device__ __forceinline__ int offset(unsigned bag) const {
    return static_cast<int>((static_cast<const index_t*>(args_.offsets) + blockIdx.y * args_.n_bags)[bag]);
  }
  __device__ __forceinline__ void read_bags_ahead() {
    ahead_begin_ = 0, ahead_end_ = -1;
    const unsigned bag = ahead_ + lane();
    if (bag < end_) ahead_begin_ = offset(bag), ahead_end_ = offset(bag + 1);
  }
  __device__ __forceinline__ index_t index(int at) const {
    return at < limit_ ? read_once(static_cast<const index_t*>(args_.indices) + at) : 0;
  }

  const TablesArgs& args_;
  const int across_;
  const unsigned end_;
  int limit_ = 0;  // of the indices, where the team's end

  // A group of bags, a lane each, and those after it.
  unsigned group_, ahead_;
  int begin_ = 0, ahead_begin_, ahead_end_;
  int count_ = -1;     // rows; -1: no bag for the stream
  unsigned rest_ = 0;  // bags of the group whose turn has not come

  // Of the indices: which is next, where to stop, and where the lane's bag does.
  int at_ = 0, stop_ = 0, my_stop_ = -1;
  // The row numbers from `window_` on, a lane each, and those after them.
  int window_ = -1;
  unsigned row_ = 0;
  bool known_ = true;
  index_t ahead_index_ = 0;
};

}  // namespace fused
