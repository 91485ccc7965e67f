// Every table in one launch, so that no table waits for the last block of the one before, and no work that inference
// does not need.
//
// One thread and one warp: see gathered_rows.cuh. One block: four warps, for narrower rows two or one; they share one bag, a slice each, and add up
// in shared memory; where bags are short on average they take a bag each, and share only long ones. The grid: x covers the bags of one table, y is the table, so blocks go through one table after the other, as
// L2 wants it. In flight: per multiprocessor 16 to 28 warps with four or eight loads of 512 bytes each.
#include "assertion.cuh"
#include "gathered_rows.cuh"

namespace fused {

constexpr int kLong = 128;  // rows from which a bag is worth the whole block

}  // namespace fused

template <typename weight_t, typename output_t, typename index_t, bool general>
__global__ void __launch_bounds__(gathered::block_threads<weight_t>, gathered::resident_blocks<weight_t, general>)
    lookup_tables(const __grid_constant__ TablesArgs args) {
  constexpr int warps = gathered::Row<weight_t>::kWarps;
  __shared__ gathered::Shared<weight_t> shared;
  const int table = blockIdx.y;
  const TableRows rows = args.tables[table];
  bool wrong = rows.rows >= 0xffffffffLL;

  // Below one round of row numbers per warp, a bag each keeps more of a warp busy than a slice of one. The first turn is
  // for the block's own bag, the second for one bag per warp; where bags are not short there is none.
  const bool short_bags = args.n_indices < args.n_bags * args.n_tables * gathered::kLanes;
#pragma unroll 1
  for (int turn = 0; turn <= static_cast<int>(short_bags); turn++) {
    const bool together = turn == 0;
    const lookup_int64 bag = together ? blockIdx.x : static_cast<lookup_int64>(blockIdx.x) * warps + threadIdx.y;
    if (bag >= args.n_bags) break;
    const index_t* const offset = static_cast<const index_t*>(args.offsets) + table * args.n_bags + bag;
    const lookup_int64 begin = offset[0], count = offset[1] - begin;
    // As in PyTorch, an offset is wrong where it descends or leaves the indices.
    if (begin < 0 || count < 0 || begin + count > args.n_indices || count > 0x7fffffff || (count > 0 && rows.rows < 1)) {
      wrong = true;
      continue;
    }
    if (short_bags && (count >= fused::kLong) != together) continue;

    gathered::Bag<index_t> mine;
    mine.weights = static_cast<const char*>(rows.weights);
    mine.scales = static_cast<const unsigned*>(rows.scales);
    mine.rows = static_cast<unsigned>(rows.rows);
    mine.row_bytes = static_cast<unsigned>(rows.row_stride_bytes);
    mine.column_bytes = sizeof(weight_t);
    mine.dim = static_cast<int>(args.dim);
    mine.indices = static_cast<const index_t*>(args.indices) + begin;
    mine.count = static_cast<int>(count);
    mine.padding = -1;
    mine.largest = args.mode == LOOKUP_MAX;
    mine.aligned = ((reinterpret_cast<size_t>(rows.weights) | rows.row_stride_bytes | args.dim * sizeof(weight_t)) %
                    gathered::kPieceBytes) == 0;
    auto scale_of = [&](int position) { return args.sample_weights ? args.sample_weights[begin + position] : 1.0f; };
    auto write = [&](int column, float4 sum, int counted) {
      output_t* at = static_cast<output_t*>(args.output) + bag * args.output_stride + table * args.dim + column;
      gathered::store<!general>(at, gathered::result(sum, args.mode, counted), mine.dim - column);
    };
    gathered::sum_bag<weight_t, general>(mine, together, scale_of, write, shared, wrong);
  }
  LOOKUP_ASSERT(blockDim.y == warps, "a block has the warps that its type of rows is made for");
  LOOKUP_ASSERT(!wrong, "every index is a row of its table, and offsets ascend within the indices");
}
