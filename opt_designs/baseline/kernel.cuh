// The loop of PyTorch 2.1, which the paper starts from.
//
// One thread: one column of one bag at a time, row after row. One warp: 32 neighbouring columns of that bag. One
// block: 8 warps, 8 neighbouring chunks of 32 columns; with 128 columns, two bags. The grid: 1,024 blocks that stride
// over all chunks. In flight: what the compiler overlaps by unrolling the loop. See the file below.
#include "row_by_row.cuh"
