// The baseline's source, nothing else. What differs is the register cap in design.toml: a thread may take 42
// registers, so that 40 warps are resident on a multiprocessor where the baseline's 74 registers leave room for 24.
//
// Threads, warps, blocks and grid as in the baseline. In flight: fewer rows per thread, but of more threads.
#include "row_by_row.cuh"
