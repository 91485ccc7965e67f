// Everything at once: register prefetch, the register cap of OptMT, and hot rows pinned in L2 by `prepare`.
//
// The lookup: threads, warps, blocks and grid as in RPF; `distance` rows in flight per thread. `prepare`: one thread
// issues the prefetch of one 128-byte line of one hot row at a time, a warp those of 32 lines, and any grid strides
// over all of them.
#include "pin_rows.cuh"
#include "prefetched_rows.cuh"
