// OptMT's lookup after `prepare` has pinned the hot rows in L2.
//
// The lookup: threads, warps, blocks, grid and rows in flight as in OptMT. `prepare`: one thread issues the prefetch
// of one 128-byte line of one hot row at a time, a warp those of 32 lines, and any grid strides over all of them.
#include "pin_rows.cuh"
#include "row_by_row.cuh"
