// Every table in one launch, so that no table waits for the last block of the one before, and no work that inference
// does not need. Three kernels: `lookup_large` for plain calls with many bags of some length (walk.cuh), `lookup_short` for
// plain calls with bags of few rows (short_bags.cuh), and `lookup_tables` for all others, which is described here.
//
// One thread and one warp: see gathered_rows.cuh. One block: four warps, for narrower rows two or one; they share one bag, a
// slice each, and add up in shared memory; where bags are short on average they take a bag each, and share only long ones.
// The grid: x covers the bags of one table, y is the table, so blocks go through one table after the other, as L2 wants it.
// In flight: per multiprocessor 16 to 28 warps with four or eight loads of 512 bytes each.
#include "assertion.cuh"
#include "short_bags.cuh"
#include "walk.cuh"

template <typename weight_t, typename output_t, typename index_t, bool general>
__global__ void __launch_bounds__(gathered::block_threads<weight_t>, gathered::resident_blocks<weight_t, general>)
    lookup_tables(const __grid_constant__ TablesArgs args) {
  constexpr int warps = gathered::Row<weight_t>::kWarps;
  __shared__ gathered::Shared<weight_t> shared;
  const TableRows rows = args.tables[blockIdx.y];
  bool wrong = rows.rows >= 0xffffffffLL;

  // Below one round of row numbers per warp, a bag each keeps more of a warp busy than a slice of one. The first turn is
  // for the block's own bag, the second for one bag per warp; where bags are not short there is none.
  const bool short_bags = general && args.n_indices < args.n_bags * args.n_tables * gathered::kLanes;
#pragma unroll 1
  for (int turn = 0; turn <= static_cast<int>(short_bags); turn++) {
    const bool together = turn == 0;
    const lookup_int64 bag = together ? blockIdx.x : static_cast<lookup_int64>(blockIdx.x) * warps + threadIdx.y;
    if (bag >= args.n_bags) break;
    const index_t* const offset = static_cast<const index_t*>(args.offsets) + blockIdx.y * args.n_bags + bag;
    const lookup_int64 begin = offset[0], count = offset[1] - begin;
    if (!fused::is_right(args, begin, count) || (count > 0 && rows.rows < 1)) {
      wrong = true;
      continue;
    }
    if (short_bags && (count >= fused::kLong) != together) continue;
    fused::gather<output_t, general, index_t>(args, rows, bag, begin, static_cast<int>(count), together, shared, wrong);
  }
  LOOKUP_ASSERT(blockDim.y == warps, "a block has the warps that its type of rows is made for");
  LOOKUP_ASSERT(!wrong, "every index is a row of its table, and offsets ascend within the indices");
}

template <typename weight_t, typename output_t, typename index_t>
__global__ void __launch_bounds__(gathered::block_threads<weight_t>, fused::short_blocks<weight_t>)
    lookup_short(const __grid_constant__ TablesArgs args) {
  constexpr int warps = gathered::Row<weight_t>::kWarps;
  __shared__ gathered::Shared<weight_t> shared;
  __shared__ bool long_bags;
  bool wrong = false;
  fused::look_up_short<output_t, index_t>(args, shared, long_bags, wrong);
  LOOKUP_ASSERT(blockDim.y == warps, "a block has the warps that its type of rows is made for");
  LOOKUP_ASSERT(!wrong, "every index is a row of its table, and offsets ascend within the indices");
}

template <typename weight_t, typename output_t, typename index_t>
__global__ void __launch_bounds__(fused::kLanes * fused::kWarps, 1) lookup_large(const __grid_constant__ TablesArgs args) {
  static_assert(sizeof(weight_t) == sizeof(float), "of narrower rows more fit into the caches, and sorting costs more than it saves");
  __shared__ fused::Block block;
  bool wrong = false;
  if (args.dim % gathered::kRound == 0) {
    fused::look_up_all<output_t, index_t, fused::Adder<true>>(args, block, wrong);
  } else {
    fused::look_up_all<output_t, index_t, fused::Adder<false>>(args, block, wrong);
  }
  LOOKUP_ASSERT(blockDim.y == fused::kWarps, "a block has the warps that it is made for");
  LOOKUP_ASSERT(!wrong, "every index is a row of its table, and offsets ascend within the indices");
}
