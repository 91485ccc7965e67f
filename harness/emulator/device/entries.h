// A kernel as the driver launches it: from the addresses of its parameters, over memory that belongs to the process,
// which goes on. A failed assertion is the launch's result; whatever else goes wrong is told on stderr and ends the
// process, for nobody knows what the kernel has written. One launch at a time: the caller sees to that.
#pragma once
#include <unistd.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

namespace emulated {

constexpr double kLaunchSeconds = 60;  // of the processor's time, after which a kernel counts as one that never ends

// One thread of a kernel, whose parameters lie at these addresses.
typedef void (*Unpacked)(void** arguments);
template <typename T>
T parameter(const void* at) {
  std::remove_cv_t<T> value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}
template <typename... Parameters, std::size_t... at>
void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<at...>) {
  kernel(parameter<Parameters>(arguments[at])...);
}
template <typename... Parameters>
void call(void (*kernel)(Parameters...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<Parameters...>());
}
template <auto kernel>
void unpacked(void** arguments) {
  call(kernel, arguments);
}

inline std::jmp_buf launched_from;
inline std::string assertion;  // NOLINT(runtime/string): that failed
inline pid_t launching = 0;    // the thread that launches

inline std::string what_is_wrong(const Outcome& outcome, const char* text) {
  if (outcome.end == End::deadlock) return "some threads wait for ever: not all come to the same barrier or exchange";
  if (outcome.end == End::deadline) return "a thread has not ended after a minute of the processor's time";
  const auto pair = [](const std::uint32_t (&at)[2]) { return std::to_string(at[0]) + ", " + std::to_string(at[1]); };
  const std::string who = "thread (" + pair(outcome.thread) + ") of block (" + pair(outcome.block) + ") ";
  if (outcome.end == End::undefined) return who + text;
  if (outcome.signal != SIGSEGV && outcome.signal != SIGBUS) return who + "ends by " + strsignal(outcome.signal);
  if (outcome.buffer == -3) return who + "needs more stack than there is";
  const char* const does[] = {"reads", "writes", "touches"};
  if (outcome.buffer == -2) return who + does[outcome.is_write] + " through a null pointer";
  char address[32];
  std::snprintf(address, sizeof address, "0x%llx", static_cast<unsigned long long>(outcome.offset));
  return who + does[outcome.is_write] + " memory that is not there, at " + address;
}

[[noreturn]] inline void end_launch(const Outcome& outcome, const char* text) {
  if (outcome.end == End::asserted) {
    assertion = text;
    std::longjmp(launched_from, 1);
  }
  const std::string line = "An emulated kernel goes wrong: " + what_is_wrong(outcome, text) + ".\n";
  if (write(2, line.data(), line.size()) < 0) _exit(71);
  _exit(70);
}

inline void on_signal_in_launch(int signal, siginfo_t* info, void* context) {
  if (signal == SIGPROF || gettid() == launching) on_signal(signal, info, context);
  struct sigaction usual{};  // of another thread, which dies of it when it goes on
  usual.sa_handler = SIG_DFL;
  sigaction(signal, &usual, nullptr);
}

// While a kernel runs, what it does wrong is told; afterwards signals are the process's own again.
class Watched {
 public:
  Watched() {
    launching = gettid();
    for (std::size_t i = 0; i < kCount; i++) sigaction(kEnding[i], nullptr, &before_[i]);
    sigaltstack(nullptr, &stack_before_);
    watch(kLaunchSeconds, on_signal_in_launch);
  }
  ~Watched() {
    const itimerval never{};
    setitimer(ITIMER_PROF, &never, nullptr);
    for (std::size_t i = 0; i < kCount; i++) sigaction(kEnding[i], &before_[i], nullptr);
    sigaltstack(&stack_before_, nullptr);
  }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

 private:
  static constexpr std::size_t kCount = sizeof(kEnding) / sizeof(kEnding[0]);
  struct sigaction before_[kCount];
  stack_t stack_before_{};
};

// Null where the kernel returned, otherwise the sentence of the assertion that failed. `grid` and `block`: x and y.
inline const char* launch(Unpacked kernel, const unsigned* grid_size, const unsigned* block, void** arguments) {
  at_end = end_launch;
  prefetched.clear();
  gridDim = {grid_size[0], grid_size[1], 1};
  blockDim = {block[0], block[1], 1};
  const Watched watched;
  if (_setjmp(launched_from) != 0) return assertion.c_str();
  run_grid<void**>(kernel, arguments);
  return nullptr;
}

}  // namespace emulated

// Makes a kernel a symbol of the library: a function that launches it, as `launch` does.
#define EMULATED_KERNEL(symbol, ...)                                                                                \
  extern "C" __attribute__((visibility("default"))) const char* symbol(const unsigned* grid, const unsigned* block, \
                                                                       void** arguments) {                          \
    return emulated::launch(emulated::unpacked<&__VA_ARGS__>, grid, block, arguments);                              \
  }
