// Runs kernels as they are asked for: a request on stdin, its outcome on stdout, each run in a process of its own.
#pragma once
#include <sys/wait.h>

#include <cstdio>
#include <vector>

#include "entries.h"
#include "lookup_args.h"

namespace emulated {

// Then come `buffers` descriptions, each followed by its rows; `pointers`; and the kernel's arguments.
struct Request {
  std::uint32_t kernel, buffers, pointers, args_bytes;
  std::uint32_t grid[2], block[2];
  double seconds;
};
// The address of a place in a buffer, to be written into another, or into the arguments where `in` is -1.
struct Pointer {
  std::int32_t in, to;
  std::uint64_t at, offset;
};

// A kernel, and how its arguments lie in the struct that a request has of them.
struct Kernel {
  Unpacked unpacked;
  std::size_t (*spread)(void* args, void** arguments);  // writes their addresses; returns the size of the struct
};
template <typename Args>
std::size_t whole(void* args, void** arguments) {
  return arguments[0] = args, sizeof(Args);
}
// The fields of lookup_args.h, one by one.
template <typename Args>
std::size_t fields(void* args, void** arguments) {
  auto& all = *static_cast<Args*>(args);
#define FIELD(type, name) *arguments++ = &all.name;
  LOOKUP_FIELDS(FIELD)
#undef FIELD
  return sizeof(Args);
}

// False at the end of the input.
inline bool get(void* data, std::size_t bytes) {
  for (char* at = static_cast<char*>(data); bytes > 0;) {
    const ssize_t done = read(0, at, bytes);
    if (done <= 0) return false;
    at += done, bytes -= done;
  }
  return true;
}

inline void read_buffers(const Request& request) {
  for (std::uint32_t i = 0; i < request.buffers; i++) {
    Description what;
    if (!get(&what, sizeof(what))) _exit(1);
    buffers.push_back(reserve(what));
    permit(buffers.back(), PROT_READ | PROT_WRITE);
    poison(buffers.back());
    for (std::uint64_t row = 0; row < what.rows; row++) {
      if (!get(buffers.back().base + row * what.stride, what.row_bytes)) _exit(1);
    }
  }
}

inline void write_pointers(std::uint32_t count, unsigned char* args) {
  for (std::uint32_t i = 0; i < count; i++) {
    Pointer pointer;
    if (!get(&pointer, sizeof(pointer))) _exit(1);
    unsigned char* const where = (pointer.in < 0 ? args : buffers[pointer.in].base) + pointer.at;
    unsigned char* const address = buffers[pointer.to].base + pointer.offset;
    std::memcpy(where, &address, sizeof(address));
  }
}

// Reads the rest of a request and runs it.
[[noreturn]] inline void serve(const Request& request, const Kernel& kernel) {
  static unsigned char args[512] __attribute__((aligned(16)));
  void* arguments[32];
  if (kernel.spread(args, arguments) != request.args_bytes || request.args_bytes > sizeof(args)) _exit(1);
  read_buffers(request);
  std::vector<unsigned char> given(request.args_bytes);
  if (!get(given.data(), given.size())) _exit(1);
  std::memcpy(args, given.data(), given.size());
  write_pointers(request.pointers, args);
  for (const Buffer& buffer : buffers) {
    if (!buffer.what.is_written) permit(buffer, PROT_READ);
  }
  gridDim = {request.grid[0], request.grid[1], 1};
  blockDim = {request.block[0], request.block[1], 1};
  watch(request.seconds);
  run_grid<void**>(kernel.unpacked, arguments);
  finish(End::returned);
}

// Until the input ends. What a kernel prints goes to stderr.
template <std::size_t count>
int serve_all(const Kernel (&kernels)[count]) {
  out = dup(1);
  dup2(2, 1);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Request request;
  while (get(&request, sizeof(request))) {
    if (request.kernel >= count) return 1;
    const pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) serve(request, kernels[request.kernel]);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {  // by somebody else, for it tells its own faults; what is left of the input is of no use
      Outcome outcome;
      outcome.end = End::died;
      outcome.signal = WTERMSIG(status);
      put(&outcome, sizeof(outcome));
      return 1;
    }
    if (WEXITSTATUS(status) != 0) return 1;
  }
  return 0;
}

}  // namespace emulated
