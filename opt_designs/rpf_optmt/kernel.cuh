// Register prefetch under the register cap of OptMT.
//
// One thread: one column of one bag at a time; it holds the next `distance` rows' values of that column in registers.
// One warp: 32 neighbouring columns of that bag. One block: 8 warps, 8 neighbouring chunks of 32 columns; with 128
// columns, two bags. The grid: 1,024 blocks that stride over all chunks. In flight: `distance` rows per thread.
#include "prefetched_rows.cuh"
