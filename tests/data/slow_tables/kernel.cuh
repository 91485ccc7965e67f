// What tables_args.h promises, in the plainest way: nothing is fast here, so that nothing is hidden.
//
// One thread: every 32nd column of one bag. One warp: one bag. One block: four neighbouring bags of one table; the
// grid's y is the table. In flight: one value.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "assertion.cuh"
#include "tables.cuh"

template <typename weight_t>
struct Row {
  __device__ static float value(const void* row, const __half*, lookup_int64 column) {
    return static_cast<float>(static_cast<const weight_t*>(row)[column]);
  }
};
template <>
struct Row<Int8Row> {
  __device__ static float value(const void* row, const __half* scale_bias, lookup_int64 column) {
    const float q = static_cast<const unsigned char*>(row)[column];
    return static_cast<float>(scale_bias[0]) * q + static_cast<float>(scale_bias[1]);
  }
};
template <>
struct Row<Int4Row> {
  __device__ static float value(const void* row, const __half* scale_bias, lookup_int64 column) {
    const int two = static_cast<const unsigned char*>(row)[column / 2];
    const float q = static_cast<float>(column % 2 ? two >> 4 : two & 15);
    return static_cast<float>(scale_bias[0]) * q + static_cast<float>(scale_bias[1]);
  }
};

template <typename weight_t, typename output_t, typename index_t, bool generic>
__global__ void lookup_tables(const __grid_constant__ TablesArgs args) {
  const lookup_int64 bag = static_cast<lookup_int64>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (bag >= args.n_bags) return;
  const TableRows table = args.tables[blockIdx.y];
  const index_t* offsets = static_cast<const index_t*>(args.offsets) + table.number * args.n_bags + bag;
  const index_t* indices = static_cast<const index_t*>(args.indices);
  const lookup_int64 begin = offsets[0], end = offsets[1];
  LOOKUP_ASSERT(begin >= 0 && begin <= end && end <= args.n_indices, "offsets ascend within the indices");

  for (lookup_int64 column = threadIdx.x; column < table.dim; column += blockDim.x) {
    float result = 0;
    for (lookup_int64 position = begin; position < end; position++) {
      const lookup_int64 row = indices[position];
      LOOKUP_ASSERT(static_cast<unsigned long long>(row) < static_cast<unsigned long long>(table.rows),
                    "every index is a row of the table");
      const char* at = weights_of(args, table) + row * table.row_stride_bytes;
      const __half* scale_bias = reinterpret_cast<const __half*>(scales_of(args, table) + row);
      float value = Row<weight_t>::value(at, scale_bias, column);
      if (generic && args.sample_weights) value *= args.sample_weights[position];
      const bool first = position == begin;
      result = generic && table.mode == LOOKUP_MAX ? (first || value > result ? value : result) : result + value;
    }
    if (table.mode == LOOKUP_MEAN && end > begin) result /= static_cast<float>(end - begin);
    static_cast<output_t*>(args.output)[bag * args.output_stride + table.column + column] = static_cast<output_t>(result);
  }
}
