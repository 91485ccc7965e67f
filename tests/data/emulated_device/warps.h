// Threads of a block as coroutines, one running at a time: each goes on until it has to wait for others.
#pragma once
#include <ucontext.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

namespace emulated {

constexpr unsigned kLanes = 32;
constexpr size_t kStack = 128 * 1024;

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack = std::make_unique<char[]>(kStack);
  Index3 index;
  bool done = false;
};

// What the threads of a warp, or of a block, come together at.
struct Meeting {
  unsigned members = 0, arrived = 0;
  unsigned long generation = 0;
};
struct Warp {
  Meeting meeting;
  std::array<std::array<unsigned char, 64>, kLanes> given, taken;
};

struct Grid {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Meeting block;
  ucontext_t scheduler;
  size_t running = 0;
  bool moved = false;  // somebody came further since everybody had a turn
  std::string failure;
};
inline Grid grid;

inline void wait() { swapcontext(&grid.threads[grid.running].context, &grid.scheduler); }
inline Warp& warp() { return grid.warps[grid.running / kLanes]; }

// Returns when all members are here; the last one does `when_all` first.
template <typename Whenever>
void meet(Meeting& meeting, const Whenever& when_all) {
  const unsigned long mine = meeting.generation;
  grid.moved = true;
  if (++meeting.arrived == meeting.members) {
    when_all();
    meeting.arrived = 0, meeting.generation++;
  } else {
    while (meeting.generation == mine) wait();
  }
}
inline void leave(Meeting& meeting) {
  if (--meeting.members > 0 && meeting.arrived == meeting.members) meeting.arrived = 0, meeting.generation++;
}

// What every lane of the warp gives.
template <typename T>
std::array<T, kLanes> exchange(const T& value) {
  static_assert(sizeof(T) <= 64);
  Warp& mine = warp();
  std::memcpy(mine.given[grid.running % kLanes].data(), &value, sizeof(T));
  meet(mine.meeting, [&] { mine.taken = mine.given; });
  std::array<T, kLanes> all;
  for (unsigned lane = 0; lane < kLanes; lane++) std::memcpy(&all[lane], mine.taken[lane].data(), sizeof(T));
  return all;
}

// Runs `kernel(args)` for the threads of a block, together; false after a failed assertion.
template <typename Args>
bool run_block(void (*kernel)(Args), const Args& args) {
  static void (*entry)(Args);
  static const Args* given;
  entry = kernel, given = &args;
  const size_t count = static_cast<size_t>(blockDim.x) * blockDim.y;
  if (grid.threads.size() != count) grid.threads = std::vector<Thread>(count);
  grid.warps = std::vector<Warp>(count / kLanes);
  for (auto& each : grid.warps) each.meeting.members = kLanes;
  grid.block = {static_cast<unsigned>(count), 0, 0};
  for (size_t i = 0; i < count; i++) {
    Thread& thread = grid.threads[i];
    thread.index = {static_cast<unsigned>(i % blockDim.x), static_cast<unsigned>(i / blockDim.x), 0};
    thread.done = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = &grid.scheduler;
    makecontext(
        &thread.context,
        [] {
          entry(*given);
          grid.threads[grid.running].done = true;
          grid.moved = true;
          leave(warp().meeting);
          leave(grid.block);
        },
        0);
  }
  for (bool alive = true; alive && grid.failure.empty();) {
    alive = grid.moved = false;
    for (size_t i = 0; i < count && grid.failure.empty(); i++) {
      Thread& thread = grid.threads[i];
      if (thread.done) continue;
      alive = true;
      grid.running = i;
      threadIdx = thread.index;
      swapcontext(&grid.scheduler, &thread.context);
    }
    if (alive && !grid.moved && grid.failure.empty()) grid.failure = "threads wait for each other for ever";
  }
  return grid.failure.empty();
}

inline bool threads_work_together = false;

// Runs it for the whole grid, block after block; returns the sentence of the first failed assertion, or "". Threads
// that do not work together run one after the other, which is quicker.
template <typename Args>
const char* emulate(void (*kernel)(Args), const Args& args, Index3 blocks, unsigned x, unsigned y) {
  gridDim = blocks;
  blockDim = {x, y, 1};
  grid.failure.clear();
  for (blockIdx = {0, 0, 0}; blockIdx.y < blocks.y; blockIdx.y++) {
    for (blockIdx.x = 0; blockIdx.x < blocks.x; blockIdx.x++) {
      if (threads_work_together) {
        if (!run_block(kernel, args)) return grid.failure.c_str();
        continue;
      }
      try {
        for (threadIdx = {0, 0, 0}; threadIdx.y < y; threadIdx.y++) {
          for (threadIdx.x = 0; threadIdx.x < x; threadIdx.x++) kernel(args);
        }
      } catch (const std::logic_error& error) {
        grid.failure = error.what();
        return grid.failure.c_str();
      }
    }
  }
  return "";
}

}  // namespace emulated

extern "C" inline void __assertfail(const char* sentence, const char*, unsigned int, const char*, size_t) {
  if (!emulated::threads_work_together) throw std::logic_error(sentence);
  emulated::grid.failure = sentence;
  emulated::wait();  // for ever: the grid has stopped
}

inline void __syncthreads() {
  emulated::meet(emulated::grid.block, [] {});
}
inline void __syncwarp() { emulated::exchange(0); }
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) {
  emulated::grid.moved = true;
  emulated::wait();
}
inline long clock() {  // some time passes between any two calls
  static long now = 0;
  return now += 100;
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane, unsigned width = emulated::kLanes) {
  return emulated::exchange(value)[threadIdx.x / width * width + lane % width];
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int apart) {
  return emulated::exchange(value)[threadIdx.x ^ apart];
}
template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned apart) {
  const auto all = emulated::exchange(value);
  return threadIdx.x >= apart ? all[threadIdx.x - apart] : value;
}
inline unsigned __ballot_sync(unsigned, bool value) {
  unsigned bits = 0;
  const auto all = emulated::exchange(value);
  for (unsigned lane = 0; lane < emulated::kLanes; lane++) bits |= static_cast<unsigned>(all[lane]) << lane;
  return bits;
}
inline bool __any_sync(unsigned mask, bool value) { return __ballot_sync(mask, value) != 0; }
inline unsigned __match_any_sync(unsigned, unsigned value) {
  unsigned bits = 0;
  const auto all = emulated::exchange(value);
  for (unsigned lane = 0; lane < emulated::kLanes; lane++) bits |= static_cast<unsigned>(all[lane] == value) << lane;
  return bits;
}
inline unsigned atomicAdd(unsigned* at, unsigned value) {
  const unsigned before = *at;
  *at += value;
  return before;
}
