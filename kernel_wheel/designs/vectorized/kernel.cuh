// What the design `vectorized` does for one table in the place of nn.EmbeddingBag, for the tables of a launch: 16 bytes of a
// row per load, and every bag by itself. One bag is summed up by the very code of `fused` and `vectorized`.
//
// One thread and one warp: see gathered_rows.cuh. One block: four warps, for narrower rows two or one; they share one bag, a
// slice each, and add up in shared memory; of a table whose bags are short on average they take a bag each, and share only
// long ones. The grid: x covers the bags of one table, y is the table. In flight: per multiprocessor 16 to 28 warps with four
// or eight loads of 512 bytes each.
//
// `generic` = false is launched where there are no sample weights and no mode max, every table has at least one row and fewer
// than 2^31 - 1, less than 4 GiB apart, every row begins at a multiple of 16 bytes and holds whole groups of 16 bytes, and so
// does every table's part of every output row. Tables need not be alike.
#include "assertion.cuh"
#include "fused/generic/bag.cuh"

namespace vectorized {

// The bag of the block, or in its second turn that of this warp, if this is its turn: a block's bag where bags are short is
// a long one. `count` is 0 where the offsets are wrong.
template <typename index_t>
struct Turn {
  lookup_int64 bag, begin, count;
  bool is_there, right;

  __device__ __forceinline__ Turn(const TablesArgs& args, const index_t* offsets, int warps, bool together, bool short_bags)
      : bag(together ? blockIdx.x : static_cast<lookup_int64>(blockIdx.x) * warps + threadIdx.y), begin(0), count(0), is_there(bag < args.n_bags), right(true) {
    if (!is_there) return;
    begin = offsets[bag];
    right = fused::is_right(args, begin, offsets[bag + 1]);
    count = right ? offsets[bag + 1] - begin : 0;
    is_there = !short_bags || (count >= fused::generic::kLong) == together;
  }
};

template <typename weight_t, typename output_t, typename index_t, bool generic>
__device__ __forceinline__ void look_up(const TablesArgs& args, gathered::Shared<weight_t>& shared, bool& wrong) {
  constexpr int warps = gathered::kWarps<weight_t>;
  const TableRows table = args.tables[blockIdx.y];
  const index_t* const offsets = static_cast<const index_t*>(args.offsets) + table.number * args.n_bags;
  // Of wrong offsets the difference may be anything, but is the same for all blocks.
  const auto lookups = static_cast<unsigned long long>(offsets[args.n_bags]) - static_cast<unsigned long long>(offsets[0]);
  const bool short_bags = lookups < static_cast<unsigned long long>(args.n_bags) * gathered::kLanes;
#pragma unroll 1
  for (int turn = 0; turn <= static_cast<int>(short_bags); turn++) {
    const Turn<index_t> mine(args, offsets, warps, turn == 0, short_bags);
    wrong = wrong || !mine.right || (mine.count > 0 && table.rows < 1);
    if (!mine.is_there || (mine.count > 0 && table.rows < 1)) continue;
    fused::generic::gather<output_t, generic, index_t>(args, table, mine.bag, mine.begin, static_cast<int>(mine.count), turn == 0, shared, wrong);
  }
  if (args.faults == nullptr || !__syncthreads_or(wrong)) return;
#pragma unroll 1
  for (int turn = 0; turn <= static_cast<int>(short_bags); turn++) {
    const Turn<index_t> mine(args, offsets, warps, turn == 0, short_bags);
    if (!mine.is_there || (turn == 0 && threadIdx.y != 0)) continue;
    fused::mend_bag<weight_t, output_t, index_t>(args, table, mine.bag);
  }
}

}  // namespace vectorized

template <typename weight_t, typename output_t, typename index_t, bool generic>
__global__ void __launch_bounds__(gathered::block_threads<weight_t>, gathered::resident_blocks<weight_t, generic>)
    lookup_tables(const __grid_constant__ TablesArgs args) {
  __shared__ gathered::Shared<weight_t> shared;
  bool wrong = false;
  vectorized::look_up<weight_t, output_t, index_t, generic>(args, shared, wrong);
  LOOKUP_ASSERT(blockDim.y == gathered::kWarps<weight_t>, "a block has the warps that its type of rows is made for");
  LOOKUP_ASSERT(args.faults != nullptr || !wrong, "every index is a row of its table, and offsets ascend within the indices");
}
