// NVRTC has no <assert.h>. `__assertfail` is what assert() itself ends in on the device: it prints the sentence
// with block and thread and stops the grid; the host sees a device-side assert at its next synchronisation.
//
// The compiler takes it for a call that may return, as it does in PyTorch's builds. That is why the loop of PyTorch
// 2.1 needs 74 registers: values that live across a call must be kept where a callee leaves them alone. Declared
// `noreturn` the same loop takes 38, and would no longer be the kernel that the paper starts from.
#pragma once

extern "C" __device__ void __assertfail(const char* message, const char* file, unsigned int line,
                                        const char* function, size_t char_size);

// `sentence` says what must hold. It stands in for file and line, so that the machine code depends on neither the
// folder it was compiled in nor on comments.
#define LOOKUP_ASSERT(condition, sentence)                              \
  do {                                                                  \
    if (!(condition)) {                                                 \
      __assertfail(sentence, "opt_designs", 0, __func__, sizeof(char)); \
    }                                                                   \
  } while (false)
