// Threads of a block as coroutines, one running at a time: each goes on until it has to wait for others.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <csetjmp>
#include <map>
#include <vector>

namespace emulated {

constexpr unsigned kLanes = 32;
constexpr unsigned kWhole = 0xffffffffu;
constexpr std::size_t kStack = 128 * 1024;  // of a thread
constexpr std::size_t kStackApart = kStack + kPage;

struct Thread {
  ucontext_t beginning;
  std::jmp_buf place;  // where it goes on; to switch by these takes no call of the system
  Index3 index;
  bool begun = false, done = false;
};

// What some lanes of a warp, or the threads of a block, come together at.
struct Meeting {
  unsigned members = 0, arrived = 0;
  unsigned long generation = 0;
  bool ended = false;  // whether one of them will not come any more
};
struct Exchange {
  Meeting meeting;
  alignas(16) unsigned char given[kLanes * 64], taken[kLanes * 64];
};
struct Warp {
  unsigned present = 0, ended = 0;         // a bit for each lane
  std::map<unsigned, Exchange> exchanges;  // by the lanes that take part
};

struct Grid {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  unsigned char* stacks = nullptr;  // of so many threads
  std::size_t stack_count = 0;
  Meeting block;
  std::jmp_buf scheduler;
  std::size_t running = 0;
  bool moved = false;  // somebody came further since everybody had a turn
};
inline Grid grid;

inline Outcome here() {
  Outcome outcome;
  outcome.block[0] = blockIdx.x, outcome.block[1] = blockIdx.y;
  outcome.thread[0] = threadIdx.x, outcome.thread[1] = threadIdx.y;
  return outcome;
}

// Lets the others run.
inline void wait() {
  if (_setjmp(grid.threads[grid.running].place) == 0) std::longjmp(grid.scheduler, 1);
}
// Goes on with a thread until it waits.
inline void resume(Thread& thread) {
  if (_setjmp(grid.scheduler) != 0) return;
  if (thread.begun) std::longjmp(thread.place, 1);
  thread.begun = true;
  setcontext(&thread.beginning);
}
inline unsigned lane() { return grid.running % kLanes; }
inline Warp& warp() { return grid.warps[grid.running / kLanes]; }

// Returns when all members are here; the last one does `when_all` first.
template <typename Whenever>
void meet(Meeting& meeting, const Whenever& when_all) {
  const unsigned long mine = meeting.generation;
  if (meeting.ended) finish(End::deadlock);
  grid.moved = true;
  if (++meeting.arrived == meeting.members) {
    when_all();
    meeting.arrived = 0, meeting.generation++;
  } else {
    while (meeting.generation == mine) wait();
  }
}
// A thread ends. Whoever waits for it waits for ever.
inline void leave() {
  if (grid.block.arrived > 0) finish(End::deadlock);
  grid.block.ended = true;
  Warp& mine = warp();
  mine.ended |= 1u << lane();
  for (auto& [lanes, exchange] : mine.exchanges) {
    if ((lanes >> lane() & 1) && exchange.meeting.arrived > 0) finish(End::deadlock);
  }
}

// What every lane in `lanes` gives, by lane; good until the caller gives something again.
template <typename T>
const T* exchange(unsigned lanes, const T& value) {
  static_assert(sizeof(T) <= 64 && alignof(T) <= 16);
  Warp& mine = warp();
  const auto [found, is_new] = mine.exchanges.try_emplace(lanes);
  Exchange& all = found->second;
  if (is_new) all.meeting.members = static_cast<unsigned>(std::popcount(lanes & mine.present));
  if (lanes & mine.ended) finish(End::deadlock);
  std::memcpy(all.given + lane() * sizeof(T), &value, sizeof(T));
  meet(all.meeting, [&] { std::memcpy(all.taken, all.given, kLanes * sizeof(T)); });
  return reinterpret_cast<const T*>(all.taken);
}

// Of at least so many threads, each after a page that nobody may touch, for a stack grows towards it.
inline void make_stacks(std::size_t count) {
  if (grid.stack_count >= count) return;
  if (grid.stacks != nullptr) munmap(grid.stacks, grid.stack_count * kStackApart);
  void* const stacks =
      mmap(nullptr, count * kStackApart, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) _exit(1);
  grid.stacks = static_cast<unsigned char*>(stacks), grid.stack_count = count;
  for (std::size_t i = 0; i < count; i++) mprotect(grid.stacks + i * kStackApart, kPage, PROT_NONE);
}

// Makes the threads of a block, which serve every block: each runs `kernel(args)` and waits to do so again.
template <typename Args>
void make_threads(void (*kernel)(Args), const Args& args) {
  static void (*entry)(Args);
  static const Args* given;
  entry = kernel, given = &args;
  const std::size_t count = static_cast<std::size_t>(blockDim.x) * blockDim.y;
  make_stacks(count);
  grid.threads = std::vector<Thread>(count);
  for (std::size_t i = 0; i < count; i++) {
    Thread& thread = grid.threads[i];
    thread.index = {static_cast<unsigned>(i % blockDim.x), static_cast<unsigned>(i / blockDim.x), 0};
    getcontext(&thread.beginning);
    thread.beginning.uc_stack.ss_sp = grid.stacks + i * kStackApart + kPage;
    thread.beginning.uc_stack.ss_size = kStack;
    makecontext(
        &thread.beginning,
        [] {
          while (true) {
            entry(*given);
            grid.threads[grid.running].done = true;
            grid.moved = true;
            leave();
            wait();
          }
        },
        0);
  }
}

inline void run_block() {
  const std::size_t count = grid.threads.size();
  grid.warps.assign((count + kLanes - 1) / kLanes, {});
  grid.block = {static_cast<unsigned>(count)};
  for (std::size_t i = 0; i < count; i++) {
    grid.threads[i].done = false;
    grid.warps[i / kLanes].present |= 1u << i % kLanes;
  }
  for (bool alive = true; alive;) {
    alive = grid.moved = false;
    for (std::size_t i = 0; i < count; i++) {
      if (grid.threads[i].done) continue;
      alive = true;
      grid.running = i;
      threadIdx = grid.threads[i].index;
      resume(grid.threads[i]);
    }
    if (alive && !grid.moved) finish(End::deadlock);
  }
}

// Runs it for the whole grid, block after block.
template <typename Args>
void run_grid(void (*kernel)(Args), const Args& args) {
  make_threads(kernel, args);
  for (blockIdx = {0, 0, 0}; blockIdx.y < gridDim.y; blockIdx.y++) {
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) run_block();
  }
}

}  // namespace emulated

// As on the device, a failed assertion never returns: the grid stops.
extern "C" inline void __assertfail(const char* sentence, const char*, unsigned int, const char*, std::size_t) {
  emulated::finish(emulated::End::asserted, sentence);
}

inline void __syncthreads() {
  emulated::meet(emulated::grid.block, [] {});
}
inline int __syncthreads_or(int value) {
  static bool any, result;
  if (emulated::grid.block.arrived == 0) any = false;
  any = any || value != 0;
  emulated::meet(emulated::grid.block, [] { result = any; });
  return result;
}
inline void __syncwarp(unsigned lanes = emulated::kWhole) { emulated::exchange(lanes, 0); }
inline void __threadfence_block() {}
inline void __threadfence() {}
inline void __nanosleep(unsigned) {
  emulated::grid.moved = true;
  emulated::wait();
}
inline long clock() {  // some time passes between any two calls
  static long now = 0;
  return now += 100;
}
inline unsigned __activemask() { return emulated::warp().present & ~emulated::warp().ended; }
template <typename T>
T __shfl_sync(unsigned lanes, T value, int from, unsigned width = emulated::kLanes) {
  return emulated::exchange(lanes, value)[emulated::lane() / width * width + static_cast<unsigned>(from) % width];
}
template <typename T>
T __shfl_xor_sync(unsigned lanes, T value, int apart, unsigned width = emulated::kLanes) {
  const unsigned from = emulated::lane() ^ static_cast<unsigned>(apart);
  const T* const all = emulated::exchange(lanes, value);
  return from / width <= emulated::lane() / width ? all[from % emulated::kLanes] : value;
}
template <typename T>
T __shfl_up_sync(unsigned lanes, T value, unsigned apart, unsigned width = emulated::kLanes) {
  const T* const all = emulated::exchange(lanes, value);
  return emulated::lane() % width >= apart ? all[emulated::lane() - apart] : value;
}
template <typename T>
T __shfl_down_sync(unsigned lanes, T value, unsigned apart, unsigned width = emulated::kLanes) {
  const T* const all = emulated::exchange(lanes, value);
  return emulated::lane() % width + apart < width ? all[emulated::lane() + apart] : value;
}
// A bit for each lane in `lanes` whose value is such.
template <typename T, typename Such>
unsigned bits_of(unsigned lanes, const T& value, const Such& such) {
  const T* const all = emulated::exchange(lanes, value);
  unsigned bits = 0;
  for (unsigned i = 0; i < emulated::kLanes; i++) {
    if ((lanes & emulated::warp().present) >> i & 1) bits |= static_cast<unsigned>(such(all[i])) << i;
  }
  return bits;
}
inline unsigned __ballot_sync(unsigned lanes, bool value) {
  return bits_of(lanes, value, [](bool one) { return one; });
}
inline bool __any_sync(unsigned lanes, bool value) { return __ballot_sync(lanes, value) != 0; }
inline bool __all_sync(unsigned lanes, bool value) { return __ballot_sync(lanes, !value) == 0; }
template <typename T>
unsigned __match_any_sync(unsigned lanes, T value) {
  return bits_of(lanes, value, [value](T one) { return one == value; });
}
// One thread runs at a time.
template <typename T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  *at = before + value;
  return before;
}
template <typename T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  *at = value;
  return before;
}
template <typename T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  *at = std::max<T>(before, value);
  return before;
}
