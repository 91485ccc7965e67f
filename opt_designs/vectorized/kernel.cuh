// One 16-byte load per thread and row instead of four bytes, and no instruction that all columns repeat.
//
// One thread: four neighbouring columns (16 bytes of float32, 8 of float16) of every row that its warp takes, summed in
// float32. One warp: 32 row numbers at a time, read and checked by its 32 lanes at once and handed round by shuffle; a
// row of 128 columns is one load of the warp, of narrower rows it loads several at once, of wider ones it makes several
// rounds. One block: four warps; they share one bag, a quarter each, and add up in shared memory, or take a bag each
// where bags are short. The grid has a block per bag. In flight per warp: kInFlight loads, whose row numbers are in
// registers before the first is issued.
#include <cuda_fp16.h>

#include "assertion.cuh"
#include "lookup_args.h"

namespace vectorized {

constexpr int kLanes = 32;
constexpr int kWarps = 4;
constexpr int kColumns = 4;   // per thread
constexpr int kInFlight = 8;  // sixteen took too many registers, four left the memory idle
constexpr unsigned kAll = 0xffffffffu;

__device__ __forceinline__ float4 widened(float4 packed) { return packed; }
__device__ __forceinline__ float4 widened(uint2 packed) {
  const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&packed.x));
  const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&packed.y));
  return {low.x, low.y, high.x, high.y};
}

__device__ __forceinline__ void store(float* at, float4 v) { *reinterpret_cast<float4*>(at) = v; }
__device__ __forceinline__ void store(__half* at, float4 v) {
  const __half2 low = __floats2half2_rn(v.x, v.y), high = __floats2half2_rn(v.z, v.w);
  *reinterpret_cast<uint2*>(at) = {*reinterpret_cast<const unsigned*>(&low), *reinterpret_cast<const unsigned*>(&high)};
}

template <typename scalar_t>
struct Packed;
template <>
struct Packed<float> {
  typedef float4 type;
};
template <>
struct Packed<__half> {
  typedef uint2 type;
};

// Four columns of a row, `first` pointing at them in row 0: one load where the table allows it, otherwise one each and
// none past the last.
template <bool aligned, typename row_t, typename scalar_t, typename index_t>
__device__ __forceinline__ float4 fetch(const TypedLookupArgs<scalar_t, index_t>& args, const scalar_t* first, row_t row,
                                        lookup_int64 column) {
  if (aligned) {
    typedef typename Packed<scalar_t>::type packed;
    // Counted in groups of four columns, a stride fits 32 bits: one multiplication instead of three.
    const unsigned stride = static_cast<unsigned>(args.row_stride / kColumns);
    return widened(__ldg(reinterpret_cast<const packed*>(first) + static_cast<unsigned long long>(stride) * row));
  }
  const scalar_t* at = first + row * args.row_stride;
  float v[kColumns] = {};
#pragma unroll
  for (int i = 0; i < kColumns; i++) {
    if (column + i < args.dim) v[i] = static_cast<float>(at[i * args.column_stride]);
  }
  return {v[0], v[1], v[2], v[3]};
}

__device__ __forceinline__ void add(float4& sum, float4 v) { sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w; }

// What one warp adds up: of `count` indices from `from` on, the rows that are not padding, which it counts. An index that
// is no row of the table is not read but told through `wrong`. row_t is wide enough for the table's row numbers; kept
// narrow, they cost one shuffle instead of two.
template <bool aligned, bool weighted, typename row_t, typename scalar_t, typename index_t>
__device__ __forceinline__ float4 sum_rows(const TypedLookupArgs<scalar_t, index_t>& args, lookup_int64 from, int count,
                                           lookup_int64 column, int lanes, int& counted, bool& wrong) {
  constexpr int in_flight = aligned ? kInFlight : 1;  // the unaligned way must not cost the other registers
  const int lane = threadIdx.x, rows_at_once = kLanes / lanes;
  const row_t absent = static_cast<row_t>(-1);
  const scalar_t* first = args.weights + column * args.column_stride;
  const bool inside = column < args.dim;
  float4 sum = {0, 0, 0, 0};
  for (int base = 0; base < count; base += kLanes) {
    const int here = min(kLanes, count - base);
    row_t mine = absent;
    float my_scale = 0;
    if (lane < here) {
      const index_t row = args.indices[from + base + lane];
      const bool known = static_cast<unsigned long long>(row) < static_cast<unsigned long long>(args.rows);
      wrong = wrong || !known;
      if (known && row != static_cast<index_t>(args.padding_idx)) mine = static_cast<row_t>(row);
      if (weighted) {
        my_scale = static_cast<float>(args.sample_weights[(from + base + lane) * args.sample_weight_stride]);
      }
    }
    counted += __popc(__ballot_sync(kAll, mine != absent));
    for (int i = 0; i < here; i += in_flight * rows_at_once) {
      float4 fetched[in_flight];
      float scale[weighted ? in_flight : 1];
#pragma unroll
      for (int k = 0; k < in_flight; k++) {
        const int which = i + k * rows_at_once + lane / lanes;
        const row_t row = __shfl_sync(kAll, mine, which & (kLanes - 1));
        if (weighted) scale[k] = __shfl_sync(kAll, my_scale, which & (kLanes - 1));
        fetched[k] = {0, 0, 0, 0};
        if (which < here && row != absent && inside) fetched[k] = fetch<aligned>(args, first, row, column);
      }
#pragma unroll
      for (int k = 0; k < in_flight; k++) {
        const float4 v = fetched[k];
        add(sum, weighted ? float4{scale[k] * v.x, scale[k] * v.y, scale[k] * v.z, scale[k] * v.w} : v);
      }
    }
  }
  // Lanes that took different rows of the same columns.
  for (int apart = lanes; apart < kLanes; apart *= 2) {
    add(sum, {__shfl_xor_sync(kAll, sum.x, apart), __shfl_xor_sync(kAll, sum.y, apart),
              __shfl_xor_sync(kAll, sum.z, apart), __shfl_xor_sync(kAll, sum.w, apart)});
  }
  return sum;
}

template <bool aligned, typename scalar_t, typename index_t>
__device__ __forceinline__ void write(const TypedLookupArgs<scalar_t, index_t>& args, lookup_int64 bag,
                                      lookup_int64 column, float4 sum, int counted) {
  if (args.mode == LOOKUP_MEAN && counted != 0) {
    const float n = static_cast<float>(counted);
    sum = {sum.x / n, sum.y / n, sum.z / n, sum.w / n};
  }
  scalar_t* at = args.output + bag * args.dim + column;
  if (aligned) {
    store(at, sum);
    return;
  }
  const float v[kColumns] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
  for (int i = 0; i < kColumns; i++) {
    if (column + i < args.dim) at[i] = static_cast<scalar_t>(v[i]);
  }
}

// Whether an index or an offset was wrong: the caller ends the grid then. Here the assertion would be a call amidst the
// loop, for which the compiler keeps registers; at the end of the kernel it costs nothing.
template <bool aligned, bool weighted, typename row_t, typename scalar_t, typename index_t>
__device__ __forceinline__ bool lookup(const TypedLookupArgs<scalar_t, index_t>& args, float4 (*partial)[kLanes],
                                       int* partial_count) {
  const int lane = threadIdx.x, warp = threadIdx.y;
  // Below one round of row numbers per warp, a bag each keeps more of the warp busy than a quarter of one.
  const bool together = args.n_indices >= args.n_bags * kLanes;
  const lookup_int64 bag = together ? blockIdx.x : static_cast<lookup_int64>(blockIdx.x) * kWarps + warp;
  if (bag >= args.n_bags) return false;  // whole blocks where warps work together, so nobody waits for them

  // As in PyTorch, the first bag begins at the first index and the last ends with the last one, whatever the offsets say.
  lookup_int64 begin = bag == 0 ? 0 : static_cast<lookup_int64>(args.offsets[bag]);
  lookup_int64 end = bag < args.n_bags - 1 ? static_cast<lookup_int64>(args.offsets[bag + 1]) : args.n_indices;
  bool wrong = begin < 0 || begin > end || end > args.n_indices || end - begin > 0x7fffffff;
  if (wrong) end = begin = 0;
  int count = static_cast<int>(end - begin);
  if (args.offset2bag) {
    for (int i = together ? threadIdx.y * kLanes + lane : lane; i < count; i += together ? kWarps * kLanes : kLanes) {
      args.offset2bag[begin + i] = static_cast<index_t>(bag);
    }
  }
  if (together) {
    const int quarter = (count + kWarps - 1) / kWarps;
    begin += min(warp * quarter, count);
    count = max(0, min(quarter, count - warp * quarter));
  }

  const int groups = static_cast<int>((args.dim + kColumns - 1) / kColumns);
  int lanes = kLanes;
  while (lanes / 2 >= groups) lanes /= 2;
  for (int group = 0; group < groups; group += kLanes) {
    const lookup_int64 column = static_cast<lookup_int64>(group + lane % lanes) * kColumns;
    int counted = 0;
    float4 sum = sum_rows<aligned, weighted, row_t>(args, begin, count, column, lanes, counted, wrong);
    if (together) {
      partial[warp][lane] = sum;
      partial_count[warp] = counted;
      __syncthreads();
      if (warp == 0) {
#pragma unroll
        for (int other = 1; other < kWarps; other++) {
          add(sum, partial[other][lane]);
          counted += partial_count[other];
        }
      }
      __syncthreads();
    }
    if (!together || warp == 0) {
      if (lane < lanes && column < args.dim) write<aligned>(args, bag, column, sum, counted);
      if (group == 0 && lane == 0 && args.bag_size) args.bag_size[bag] = static_cast<index_t>(counted);
    }
  }
  return wrong;
}

template <bool aligned, typename row_t, typename scalar_t, typename index_t>
__device__ __forceinline__ bool with_weights(const TypedLookupArgs<scalar_t, index_t>& args) {
  __shared__ float4 partial[kWarps][kLanes];
  __shared__ int partial_count[kWarps];
  return args.sample_weights ? lookup<aligned, true, row_t>(args, partial, partial_count)
                             : lookup<aligned, false, row_t>(args, partial, partial_count);
}

}  // namespace vectorized

template <typename scalar_t, typename index_t, int resident>
__global__ void __launch_bounds__(vectorized::kLanes* vectorized::kWarps, resident) lookup(LOOKUP_PARAMETERS) {
  const TypedLookupArgs<scalar_t, index_t> args = LOOKUP_ARGUMENTS;
  // Whole groups of four columns, each group of every row where one load can take it.
  const bool aligned = column_stride == 1 && dim % vectorized::kColumns == 0 &&
                       row_stride % vectorized::kColumns == 0 &&
                       reinterpret_cast<size_t>(weights) % (vectorized::kColumns * sizeof(scalar_t)) == 0;
  const bool wrong = !aligned             ? vectorized::with_weights<false, unsigned long long>(args)
                     : rows < 0xffffffffLL ? vectorized::with_weights<true, unsigned>(args)
                                           : vectorized::with_weights<true, unsigned long long>(args);
  LOOKUP_ASSERT(!wrong, "every index is a row of the table, and offsets ascend within the indices");
}
