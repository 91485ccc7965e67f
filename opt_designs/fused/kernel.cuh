// Every table in one launch, so that no table waits for the last block of the one before, and no work that inference does
// not need. Four ways, which know nothing of each other:
//
//   lookup_stream  tables of any rows, widths and bag lengths, by as many rows at a time  stream/stream.cuh
//   lookup_large   many bags of some length over tables that are alike, all in one order   large/walk.cuh
//   lookup_wide    bags of some length over tables that are alike and of wide rows        wide/bag.cuh
//   lookup_tables  any call, sample weights and the mode max included                      generic/bag.cuh
//
// and what makes a call go on past a wrong row number, for all of them: careful.cuh. What a thread, a warp, a block and the grid
// do, and what is in flight, stands at the head of each of the four.
#include "assertion.cuh"
#include "generic/bag.cuh"
#include "large/walk.cuh"
#include "launch.h"
#include "stream/stream.cuh"
#include "wide/bag.cuh"

#define FUSED_ASSERT_RIGHT(args, right) \
  LOOKUP_ASSERT((args).faults != nullptr || (right), "every index is a row of its table, and offsets ascend within the indices")

template <typename weight_t, typename output_t, typename index_t>
__global__ void __launch_bounds__(launch::lookup_stream::kThreads, launch::lookup_stream::kBlocksPerSm)
    lookup_stream(const __grid_constant__ TablesArgs args) {
  __shared__ fused::stream::Block<weight_t, output_t, index_t> block;
  const bool right = fused::stream::Stream<weight_t, output_t, index_t>(args, block).look_up();
  LOOKUP_ASSERT(blockDim.y == fused::stream::kWarps, "a block has the warps that it is made for");
  FUSED_ASSERT_RIGHT(args, right);
}

template <typename weight_t, typename output_t, typename index_t>
__global__ void __launch_bounds__(launch::lookup_large::kThreads, launch::lookup_large::kBlocksPerSm)
    lookup_large(const __grid_constant__ TablesArgs args) {
  static_assert(sizeof(weight_t) == sizeof(float), "of narrower rows more fit into the caches, and sorting costs more than it saves");
  __shared__ fused::large::Block block;
  bool wrong = false;
  if (args.dim % gathered::kRound == 0) {
    fused::large::look_up_all<output_t, index_t, fused::large::Accumulator<true>>(args, block, wrong);
  } else {
    fused::large::look_up_all<output_t, index_t, fused::large::Accumulator<false>>(args, block, wrong);
  }
  LOOKUP_ASSERT(blockDim.y == fused::large::kWarps, "a block has the warps that it is made for");
  FUSED_ASSERT_RIGHT(args, !wrong);
}

template <typename weight_t, typename output_t, typename index_t>
__global__ void __launch_bounds__(launch::lookup_wide::kThreads, fused::wide::kResidentBlocks)
    lookup_wide(const __grid_constant__ TablesArgs args) {
  static_assert(sizeof(weight_t) == sizeof(float), "256 columns are two vectors of a lane");
  __shared__ fused::wide::Shared shared;
  bool wrong = false;
  fused::wide::look_up<output_t, index_t>(args, shared, wrong);
  LOOKUP_ASSERT(blockDim.y == fused::wide::kWarps, "a block has the warps that it is made for");
  FUSED_ASSERT_RIGHT(args, !wrong);
}

template <typename weight_t, typename output_t, typename index_t, bool generic>
__global__ void __launch_bounds__(gathered::block_threads<weight_t>, gathered::resident_blocks<weight_t, generic>)
    lookup_tables(const __grid_constant__ TablesArgs args) {
  __shared__ gathered::Shared<weight_t> shared;
  bool wrong = false;
  fused::generic::look_up<weight_t, output_t, index_t, generic>(args, shared, wrong);
  LOOKUP_ASSERT(blockDim.y == gathered::kWarps<weight_t>, "a block has the warps that its type of rows is made for");
  FUSED_ASSERT_RIGHT(args, !wrong);
}
