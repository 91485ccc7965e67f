// Wrong on purpose, as a kernel that takes rows two at a time easily is: of a bag with an odd number of rows it leaves
// out the last. Everything else is right, and bags of even length are too.
#include "bag_columns.cuh"

struct TwoAtATime {
  template <typename scalar_t, typename index_t>
  __device__ __forceinline__ static void sum(const BagColumn<scalar_t, index_t>& bag, Sum& sum) {
    for (lookup_int64 position = bag.begin; position + 1 < bag.end; position += 2) {
      bag.add(position, bag.fetch(bag.row_at(position), sum), sum);
      bag.add(position + 1, bag.fetch(bag.row_at(position + 1), sum), sum);
    }
  }
};

template <typename scalar_t, typename index_t>
__global__ void lookup(LOOKUP_PARAMETERS) {
  const TypedLookupArgs<scalar_t, index_t> args = LOOKUP_ARGUMENTS;
  for_each_bag_column<scalar_t, index_t, TwoAtATime>(args);
}
