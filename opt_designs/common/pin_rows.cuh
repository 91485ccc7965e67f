// Fetches hot rows into L2 and asks for their lines to be evicted last: `prefetch.global.L2::evict_last`, one per
// 128-byte line that holds a part of a row. Moves nothing into registers, so nothing waits for memory.
//
// One thread: one line of one hot row at a time. One warp: 32 lines, which with rows of 512 bytes is 8 hot rows. Any
// one-dimensional grid will do, and blocks of any shape: threads are numbered through and stride over the lines.
#pragma once

#include "lookup_args.h"

template <typename scalar_t>
__global__ void prepare(const __grid_constant__ PrepareArgs args) {
  constexpr lookup_int64 line_bytes = 128;
  const lookup_int64* hot_rows = static_cast<const lookup_int64*>(args.hot_rows);
  const lookup_int64 weights = reinterpret_cast<lookup_int64>(args.weights);
  if (args.row_bytes <= 0) {
    return;
  }

  // The most lines that one row touches: where rows do not begin with a line, they may reach into one more.
  const bool rows_begin_lines = (weights | args.row_stride_bytes) % line_bytes == 0;
  const lookup_int64 lines_per_row = rows_begin_lines ? (args.row_bytes + line_bytes - 1) / line_bytes
                                                      : (args.row_bytes + line_bytes - 2) / line_bytes + 1;
  const lookup_int64 lines = args.n_hot_rows * lines_per_row;

  const lookup_int64 threads_of_block = blockDim.x * blockDim.y;
  const lookup_int64 thread = blockIdx.x * threads_of_block + threadIdx.y * blockDim.x + threadIdx.x;
  const lookup_int64 threads = gridDim.x * threads_of_block;
  for (lookup_int64 i = thread; i < lines; i += threads) {
    const lookup_int64 row_begin = weights + hot_rows[i / lines_per_row] * args.row_stride_bytes;
    const lookup_int64 row_end = row_begin + args.row_bytes;
    const lookup_int64 line = row_begin / line_bytes * line_bytes + i % lines_per_row * line_bytes;
    if (line < row_end) {
      const size_t address = __cvta_generic_to_global(reinterpret_cast<const void*>(line));
      asm volatile("prefetch.global.L2::evict_last [%0];" ::"l"(address));
    }
  }
}
