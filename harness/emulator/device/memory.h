// What a kernel may touch: buffers that the caller hands over, each in pages of its own with guards on both sides, so
// that an access outside is noticed where it happens; and what is told of a run.
#pragma once
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace emulated {

// How a run ended. harness/emulator/program.py has the same numbers and structs.
enum class End : std::uint32_t { returned, asserted, fault, undefined, deadlock, deadline, died };

struct Outcome {
  End end = End::returned;
  std::int32_t signal = 0;
  std::int32_t buffer = -1;    // the nearest to a faulty address; -1: none, -2: a null pointer, -3: the stack
  std::uint32_t is_write = 2;  // 0: read, 1: written, 2: the machine does not tell
  std::int64_t offset = 0;     // of a faulty address in that buffer, in bytes; where there is no buffer, the address
  std::uint32_t block[2] = {}, thread[2] = {};
  std::uint32_t text_bytes = 0, prefetches = 0;
};

// `rows` times `row_bytes`, `stride` bytes from one to the next.
struct Description {
  std::uint64_t rows, row_bytes, stride, alignment;
  std::uint32_t is_written;     // whether the kernel may write it
  std::uint32_t ends_at_guard;  // which end of it touches a guard: its last byte's, or its first's
};

struct Buffer {
  Description what;
  unsigned char *reserved, *base;
  std::uint64_t reserved_bytes;
};

constexpr std::uint64_t kPage = 4096, kGuard = 1 << 28;
constexpr unsigned char kPoison = 0x7f;  // no row number of a table here, and as a value far from any sum

inline std::vector<Buffer> buffers;
inline std::vector<std::size_t> prefetched;  // every address that a prefetch was issued for, in order
inline int out = 1;                          // where outcomes go

inline void note_prefetch(std::size_t address) {
  if (prefetched.size() < 1 << 20) prefetched.push_back(address);
}

inline void put(const void* data, std::size_t bytes) {
  for (const char* at = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t done = write(out, at, bytes);
    if (done < 0) _exit(1);
    at += done, bytes -= done;
  }
}

inline Outcome here();  // block and thread that run

// Where a process goes on after a run (entries.h): what is done at its end. It does not return.
inline void (*at_end)(const Outcome& outcome, const char* text) = nullptr;

// Tells how the run ended and what it wrote, and ends the process.
[[noreturn]] inline void finish(Outcome outcome, const char* text = "") {
  if (at_end != nullptr) at_end(outcome, text);
  outcome.text_bytes = std::strlen(text);
  outcome.prefetches = prefetched.size();
  put(&outcome, sizeof(outcome));
  put(text, outcome.text_bytes);
  for (const Buffer& buffer : buffers) {
    put(&buffer.base, sizeof(buffer.base));
    if (!buffer.what.is_written) continue;
    for (std::uint64_t row = 0; row < buffer.what.rows; row++) {
      put(buffer.base + row * buffer.what.stride, buffer.what.row_bytes);
    }
  }
  put(prefetched.data(), prefetched.size() * sizeof(prefetched[0]));
  _exit(0);
}
[[noreturn]] inline void finish(End end, const char* text = "") {
  Outcome outcome = here();
  outcome.end = end;
  finish(outcome, text);
}

inline std::uint64_t up(std::uint64_t bytes, std::uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

// Reserves addresses for it, of which nothing may be touched yet.
inline Buffer reserve(const Description& what) {
  const std::uint64_t span = what.rows == 0 ? 0 : (what.rows - 1) * what.stride + what.row_bytes;
  const std::uint64_t bytes = up(span, kPage) + 2 * kGuard;
  void* const reserved = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) _exit(1);
  unsigned char* const begin = static_cast<unsigned char*>(reserved) + kGuard;
  // Its end is the guard's beginning as far as its alignment lets it.
  const std::uint64_t ahead = what.ends_at_guard ? (up(span, kPage) - span) / what.alignment * what.alignment : 0;
  return {what, static_cast<unsigned char*>(reserved), begin + ahead, bytes};
}

// Lets the pages that hold its rows be touched, or lets them be read alone.
inline void permit(const Buffer& buffer, int protection) {
  std::uint64_t from = 0, to = 0;  // neighbouring pages in one call
  for (std::uint64_t row = 0; row < buffer.what.rows; row++) {
    const auto address = reinterpret_cast<std::uint64_t>(buffer.base + row * buffer.what.stride);
    const std::uint64_t begin = address / kPage * kPage, end = up(address + buffer.what.row_bytes, kPage);
    if (begin > to) {
      if (to > from) mprotect(reinterpret_cast<void*>(from), to - from, protection);
      from = begin;
    }
    if (end > to) to = end;
  }
  if (to > from && mprotect(reinterpret_cast<void*>(from), to - from, protection) != 0) _exit(1);
}

// Of the bytes in its pages those that belong to no row hold what no kernel should read.
inline void poison(const Buffer& buffer) {
  for (std::uint64_t row = 0; row < buffer.what.rows; row++) {
    const auto address = reinterpret_cast<std::uint64_t>(buffer.base + row * buffer.what.stride);
    const std::uint64_t begin = address / kPage * kPage;
    std::memset(reinterpret_cast<void*>(begin), kPoison, up(address + buffer.what.row_bytes, kPage) - begin);
  }
}

inline void locate(Outcome& outcome, std::uint64_t address) {
  if (address < kPage) {
    outcome.buffer = -2;
    return;
  }
  outcome.offset = static_cast<std::int64_t>(address);
  std::uint64_t nearest = ~0ull;
  for (std::size_t i = 0; i < buffers.size(); i++) {
    const auto begin = reinterpret_cast<std::uint64_t>(buffers[i].reserved), end = begin + buffers[i].reserved_bytes;
    const std::uint64_t apart = address < begin ? begin - address : address >= end ? address - end + 1 : 0;
    if (apart >= nearest) continue;
    nearest = apart;
    outcome.buffer = static_cast<std::int32_t>(i);
    outcome.offset = static_cast<std::int64_t>(address - reinterpret_cast<std::uint64_t>(buffers[i].base));
  }
}

inline void on_signal(int signal, siginfo_t* info, void* context) {
  Outcome outcome = here();
  outcome.end = signal == SIGPROF ? End::deadline : End::fault;
  outcome.signal = signal;
  if (signal == SIGSEGV || signal == SIGBUS) {
    auto address = reinterpret_cast<std::uint64_t>(info->si_addr);
    // Where the address is none that could exist, the machine does not tell it.
    if (info->si_code != SI_KERNEL) locate(outcome, address);
#ifdef __x86_64__
    const auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    if (info->si_code != SI_KERNEL) outcome.is_write = registers[REG_ERR] >> 1 & 1;
    const std::uint64_t stack = registers[REG_RSP];
    if (address + (1 << 16) > stack && address < stack + (1 << 16)) outcome.buffer = -3;
#else
    (void)context;
#endif
  }
  finish(outcome);
}

constexpr int kEnding[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGPROF};

// From here on whatever goes wrong is told, and so is a run that takes more of the processor's time than this.
inline void watch(double seconds, void (*handler)(int, siginfo_t*, void*) = on_signal) {
  static char stack[1 << 16];
  stack_t other{};
  other.ss_sp = stack, other.ss_size = sizeof(stack);
  sigaltstack(&other, nullptr);
  struct sigaction action{};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (const int signal : kEnding) sigaction(signal, &action, nullptr);
  itimerval timer{};
  timer.it_value.tv_sec = static_cast<time_t>(seconds);
  timer.it_value.tv_usec = static_cast<suseconds_t>((seconds - static_cast<double>(timer.it_value.tv_sec)) * 1e6);
  setitimer(ITIMER_PROF, &timer, nullptr);
}

inline std::string place(const char* file, unsigned line) {
  const std::string path = file;
  return path.substr(path.rfind('/') + 1) + ":" + std::to_string(line);
}

// A GPU refuses an access that does not begin at a multiple of its size; this machine does not.
inline void check_alignment(const void* at, std::size_t bytes) {
  if (reinterpret_cast<std::size_t>(at) % bytes == 0) return;
  const std::string text =
      std::to_string(bytes) + " bytes are accessed at an address that is no multiple of " + std::to_string(bytes);
  finish(End::undefined, text.c_str());
}

}  // namespace emulated

// What the compiler's own checks of arrays and alignment call where something is wrong.
struct CheckedPlace {
  const char* file;
  std::uint32_t line, column;
};
struct CheckedType {
  std::uint16_t kind, info;
  char name[1];
};
struct OutOfBounds {
  CheckedPlace place;
  const CheckedType *array, *index;
};
struct TypeMismatch {
  CheckedPlace place;
  const CheckedType* type;
  unsigned char log_alignment, kind;
};
extern "C" [[noreturn]] inline __attribute__((used)) void __ubsan_handle_out_of_bounds_abort(OutOfBounds* data,
                                                                                             std::uintptr_t index) {
  const std::string text = emulated::place(data->place.file, data->place.line) + ": place " +
                           std::to_string(static_cast<std::intptr_t>(index)) + " of an array " + data->array->name;
  emulated::finish(emulated::End::undefined, text.c_str());
}
extern "C" [[noreturn]] inline __attribute__((used)) void __ubsan_handle_type_mismatch_v1_abort(TypeMismatch* data,
                                                                                                std::uintptr_t) {
  const std::string text = emulated::place(data->place.file, data->place.line) + ": " + data->type->name +
                           " is accessed at an address that is no multiple of " +
                           std::to_string(1u << data->log_alignment);
  emulated::finish(emulated::End::undefined, text.c_str());
}
