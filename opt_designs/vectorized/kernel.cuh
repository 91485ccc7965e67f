// One table per launch, 16 bytes of a row per load, and no instruction that all columns repeat: in the place of
// nn.EmbeddingBag, for any dim and any bag lengths.
//
// One thread and one warp: see gathered_rows.cuh. One block: four warps, for 16-bit rows two; they share one bag, a slice each, and add up
// in shared memory; where bags are short on average they take a bag each, and share only long ones. The grid has a block
// per bag. In flight: per multiprocessor 24 or 28 warps with eight loads of 512 bytes each.
#include "assertion.cuh"
#include "gathered_rows.cuh"

namespace vectorized {

constexpr int kLong = 128;  // rows from which a bag is worth the whole block

}  // namespace vectorized

template <typename scalar_t, typename index_t, bool generic>
__global__ void __launch_bounds__(gathered::block_threads<scalar_t>, gathered::resident_blocks<scalar_t, generic>)
    lookup(LOOKUP_PARAMETERS) {
  constexpr int warps = gathered::kWarps<scalar_t>;
  __shared__ gathered::Shared<scalar_t> shared;
  bool wrong = rows >= 0xffffffffLL;

  // Below one round of row numbers per warp, a bag each keeps more of a warp busy than a slice of one. The first turn is
  // for the block's own bag, the second for one bag per warp; where bags are not short there is none.
  const bool short_bags = n_indices < n_bags * gathered::kLanes;
#pragma unroll 1
  for (int turn = 0; turn <= static_cast<int>(short_bags); turn++) {
    const bool together = turn == 0;
    const lookup_int64 bag = together ? blockIdx.x : static_cast<lookup_int64>(blockIdx.x) * warps + threadIdx.y;
    if (bag >= n_bags) break;
    // As in PyTorch, the first bag begins at the first index and the last ends with the last one, whatever the offsets
    // say; one that descends or leaves the indices is wrong.
    const lookup_int64 begin = bag == 0 ? 0 : static_cast<lookup_int64>(offsets[bag]);
    const lookup_int64 end = bag < n_bags - 1 ? static_cast<lookup_int64>(offsets[bag + 1]) : n_indices;
    const lookup_int64 count = end - begin;
    if (begin < 0 || count < 0 || end > n_indices || count > 0x7fffffff || (count > 0 && rows < 1)) {
      wrong = true;
      continue;
    }
    if (short_bags && (count >= vectorized::kLong) != together) continue;
    if (offset2bag) {  // asked for where a gradient may be wanted
      const int step = together ? warps * gathered::kLanes : gathered::kLanes;
      for (lookup_int64 i = (together ? threadIdx.y * gathered::kLanes : 0) + threadIdx.x; i < count; i += step) {
        offset2bag[begin + i] = static_cast<index_t>(bag);
      }
    }

    gathered::Bag<index_t> mine;
    mine.weights = reinterpret_cast<const char*>(weights);
    mine.scales = nullptr;
    mine.rows = static_cast<unsigned>(rows);
    mine.row_bytes = static_cast<unsigned long long>(row_stride) * sizeof(scalar_t);
    mine.column_bytes = static_cast<unsigned long long>(column_stride) * sizeof(scalar_t);
    mine.dim = static_cast<int>(dim);
    mine.indices = indices + begin;
    mine.count = static_cast<int>(count);
    mine.padding = static_cast<index_t>(padding_idx);
    mine.largest = false;
    mine.aligned = column_stride == 1 && ((reinterpret_cast<size_t>(weights) | mine.row_bytes | dim * sizeof(scalar_t)) %
                                          gathered::kVectorBytes) == 0;
    auto scale_of = [&](int position) {
      return sample_weights ? static_cast<float>(sample_weights[(begin + position) * sample_weight_stride]) : 1.0f;
    };
    auto write = [&](int column, float4 sum, int counted) {
      if (bag_size && column == 0) bag_size[bag] = static_cast<index_t>(counted);
      gathered::store<!generic>(output + bag * dim + column, gathered::result(sum, mode, counted), mine.dim - column);
    };
    gathered::sum_bag<scalar_t, generic>(mine, together, scale_of, write, shared, wrong);
  }
  LOOKUP_ASSERT(blockDim.y == warps, "a block has the warps that its type of rows is made for");
  LOOKUP_ASSERT(!wrong, "every index is a row of the table, and offsets ascend within the indices");
}
