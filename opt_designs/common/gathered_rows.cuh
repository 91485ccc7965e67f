// What `vectorized` and `fused` share: the sum of the rows of one bag, 16 bytes of a row at a time.
//
// One thread: 16 bytes of a row, added up in float32. One warp: its 32 lanes read and check 32 row numbers at once and
// hand them round by shuffle; 128 columns of a row take 32, 16, 8 or 4 lanes, so one load of the warp is of one row or of
// several, and wider rows take several rounds. In flight per warp: `Row::kInFlight` loads, and ahead of them the next 32
// row numbers, which are read once and so pass L1 by.
#pragma once

#include "matrix_rows.cuh"

namespace gathered {

constexpr unsigned kAbsent = 0xffffffffu;

// A table and one bag's part of the indices, in 32 bits wherever they suffice. What fast calls do not ask for is looked at
// by the generic instance alone.
template <typename index_t>
struct Bag {
  const char* weights;
  const unsigned* scales;  // scale and bias of a row as two float16, where rows are quantised
  unsigned rows;
  unsigned long long row_bytes;  // from one row to the next; of fast calls fewer than 2^32
  int dim;
  int count;
  const index_t* indices;
  unsigned long long column_bytes;  // from one column to the next
  index_t padding;        // this row number counts as absent; -1: none
  bool largest;           // the largest of the rows instead of their sum
  bool aligned;           // every row is whole vectors at multiples of 16 bytes
};

// From the table's first byte to a row's: in fast calls the product of two numbers of 32 bits.
template <bool generic, typename index_t>
__device__ __forceinline__ unsigned long long row_offset(const Bag<index_t>& bag, unsigned row) {
  return generic ? bag.row_bytes * row : static_cast<unsigned long long>(static_cast<unsigned>(bag.row_bytes)) * row;
}

// What stands at `position` of the indices, as read; past the bag's end anything.
template <typename index_t>
__device__ __forceinline__ index_t index_at(const Bag<index_t>& bag, int position) {
  return position < bag.count ? read_once(bag.indices + position) : 0;
}

// The row number that was read at `position`, or kAbsent. One outside the table is told through `wrong` and never read: a
// fast call, whose table has a row at least, reads the first in its place.
template <bool generic, typename index_t>
__device__ __forceinline__ unsigned row_of(const Bag<index_t>& bag, index_t index, int position, bool& wrong) {
  if (position >= bag.count) return kAbsent;
  const bool known = static_cast<unsigned long long>(index) < bag.rows;
  wrong = wrong || !known;
  if (known && !(generic && index == bag.padding)) return static_cast<unsigned>(index);
  return generic ? kAbsent : 0;
}

// Sixteen bytes' worth of columns of one row, that begin at `row` and are the `column`-th and on.
template <typename weight_t, bool whole, typename index_t>
__device__ __forceinline__ void fetch(const Bag<index_t>& bag, const char* row, int column, uint4& vector) {
  if constexpr (whole) {
    vector = __ldg(reinterpret_cast<const uint4*>(row));
  } else {  // column by column and none past the last
    constexpr int columns = Row<weight_t>::kColumns;
    weight_t some[columns];
#pragma unroll
    for (int i = 0; i < columns; i++) {
      some[i] = column + i < bag.dim ? *reinterpret_cast<const weight_t*>(row + bag.column_bytes * i) : weight_t(0.0f);
    }
    memcpy(&vector, some, kVectorBytes);
  }
}

__device__ __forceinline__ float joined(float a, float b, bool largest) { return largest ? fmaxf(a, b) : a + b; }

// Lanes `apart` from each other give away one half each of their `width` * 2 columns and join the other, and so on with
// those further apart, until a lane has four columns left; `offset` grows by those that it gave away before them.
template <int apart, int width, int columns>
__device__ __forceinline__ void halve(float (&sum)[columns], bool largest, int& offset) {
  if constexpr (apart < kLanes) {
    const bool upper = threadIdx.x & apart;
#pragma unroll
    for (int i = 0; i < width; i++) {
      const float give = upper ? sum[i] : sum[i + width], keep = upper ? sum[i + width] : sum[i];
      sum[i] = joined(keep, __shfl_xor_sync(kAll, give, apart), largest);
    }
    offset += upper ? width : 0;
    halve<apart * 2, width / 2>(sum, largest, offset);
  }
}

// What lanes that took other rows of the same columns have, joined: four neighbouring columns per lane remain, whose
// first, counted from the lane's own first, is returned through `offset`; -1 where another lane has them.
template <int kFixed, int columns>
__device__ __forceinline__ float4 across_lanes(float (&sum)[columns], int lanes, bool largest, int& offset) {
  offset = 0;
  if constexpr (kFixed != 0) {
    halve<kFixed, columns / 2>(sum, largest, offset);
    return {sum[0], sum[1], sum[2], sum[3]};
  } else {
#pragma unroll 1
    for (int apart = lanes; apart < kLanes; apart *= 2) {
#pragma unroll
      for (int i = 0; i < columns; i++) sum[i] = joined(sum[i], __shfl_xor_sync(kAll, sum[i], apart), largest);
    }
    const int quarter = static_cast<int>(threadIdx.x) / lanes;
    float4 mine = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < columns / 4; i++) {
      if (quarter == i) mine = {sum[4 * i], sum[4 * i + 1], sum[4 * i + 2], sum[4 * i + 3]};
    }
    offset = quarter < columns / 4 ? 4 * quarter : -1;
    return mine;
  }
}

// The sum (or mode) of one bag's rows over the columns of one round, by one warp: four neighbouring columns per lane,
// `column` the first of them, or -1 where the lane has none. `lanes`: how many share a row. `counted`: rows that are not
// padding. scale_of(position) is the sample weight, asked for by the generic instance alone.
template <typename weight_t, bool generic, bool whole, int kFixed, typename index_t, typename Scale>
__device__ __forceinline__ float4 sum_round(const Bag<index_t>& bag, int round, int lanes, const Scale& scale_of,
                                            int& column, int& counted, bool& wrong) {
  typedef Row<weight_t> Type;
  constexpr int in_flight = whole ? Type::kInFlight : 1, columns = Type::kColumns;
  static_assert(kLanes % (Type::kInFlight * columns / 4) == 0, "whole groups of loads make a round of row numbers");
  const bool largest = generic && bag.largest;
  const int lane = threadIdx.x, across = kFixed ? kFixed : lanes, at_once = kLanes / across;
  const int mine_first = kFixed == kLanes ? 0 : lane / across;  // of the rows loaded at once, the one that this lane has
  const int first_column = round + lane % across * columns;
  // A lane beyond the last column loads the first ones along, which costs nothing, and its sum is left alone.
  const bool inside = first_column < bag.dim;
  const char* first = bag.weights;
  if (inside) {
    first += whole ? first_column / columns * kVectorBytes : bag.column_bytes * first_column;
  }
  first = kept(first);  // one multiply-add makes an address of it

  float sum[columns], biases = 0;
#pragma unroll
  for (int i = 0; i < columns; i++) sum[i] = largest ? __int_as_float(0xff800000) : 0;

  // Each lane has one of 32 rows, and is reading which is its own of the next 32.
  const index_t index = index_at(bag, lane);
  index_t next = index_at(bag, kLanes + lane);
  unsigned row = row_of<generic>(bag, index, lane, wrong);
#pragma unroll 1
  for (int base = 0; base < bag.count; base += kLanes) {
    const int here = min(kLanes, bag.count - base);
    const unsigned quantised = Type::kQuantised && row != kAbsent ? __ldg(bag.scales + row) : 0;
    float weight = 1;
    if (generic) {
      counted += __popc(__ballot_sync(kAll, row != kAbsent));
      if (lane < here) weight = scale_of(base + lane);
    }

    // Row numbers i and on of the 32: all of them rows, or where `checked` some absent.
    auto join = [&](int i, bool checked) {
      uint4 vector[in_flight];
      bool taken[in_flight];
#pragma unroll
      for (int k = 0; k < in_flight; k++) {
        const unsigned r = __shfl_sync(kAll, row, i + k * at_once + mine_first);
        // Of narrow rows fewer loads take all 32.
        taken[k] = !checked || (r != kAbsent && (kFixed != 0 || k * at_once < kLanes));
        vector[k] = {0, 0, 0, 0};
        if (taken[k]) {
          fetch<weight_t, whole>(bag, first + row_offset<generic>(bag, r), first_column, vector[k]);
        }
      }
#pragma unroll
      for (int k = 0; k < in_flight; k++) {
        float v[columns];
        Type::widen(vector[k], v);
        if (!generic && !Type::kQuantised) {
#pragma unroll
          for (int c = 0; c < columns; c++) sum[c] += v[c];
          continue;
        }
        float scale = generic ? __shfl_sync(kAll, weight, i + k * at_once + mine_first) : 1, bias = 0;
        if (Type::kQuantised) {  // zeros for an absent row
          const float2 pair = low_high(__shfl_sync(kAll, quantised, i + k * at_once + mine_first), __half());
          bias = pair.y * scale, scale *= pair.x;
        }
        // Its sample weight may be anything, and of narrow rows the shuffle has come round to another's scale.
        if ((generic || kFixed == 0) && !taken[k]) scale = bias = 0;
        if (largest) {
#pragma unroll
          for (int c = 0; c < columns; c++) sum[c] = taken[k] ? fmaxf(sum[c], fmaf(v[c], scale, bias)) : sum[c];
        } else {
          biases += bias;
#pragma unroll
          for (int c = 0; c < columns; c++) sum[c] = fmaf(v[c], scale, sum[c]);
        }
      }
    };
    int i = 0;
    if (!generic) {
#pragma unroll 1
      for (; i + in_flight * at_once <= here; i += in_flight * at_once) join(i, false);
    }
#pragma unroll 1
    for (; i < here; i += in_flight * at_once) join(i, true);

    row = row_of<generic>(bag, next, base + kLanes + lane, wrong);
    next = index_at(bag, base + 2 * kLanes + lane);
  }
  if (Type::kQuantised && !largest) {
#pragma unroll
    for (int c = 0; c < columns; c++) sum[c] += biases;
  }
  int offset;
  const float4 result = across_lanes<kFixed>(sum, lanes, largest, offset);
  column = offset < 0 || !inside ? -1 : first_column + offset;
  return result;
}

// The same for four-bit rows of more than 64 columns, in fast calls.
template <typename index_t>
__device__ __forceinline__ float4 sum_tiled_round(const Bag<index_t>& bag, int round, int& column, bool& wrong) {
  constexpr int tiles = kLanes / kTileRows;  // in flight together
  const int lane = threadIdx.x, mine = lane % 4 * 4, first_column = round + lane / 4 * 16;
  const bool inside = first_column < bag.dim;
  const char* const first = kept(bag.weights + (inside ? first_column : round) / 16 * kTileBytes);
  TiledSum sum;
  const index_t index = index_at(bag, lane);
  index_t next = index_at(bag, kLanes + lane);
  unsigned row = row_of<false>(bag, index, lane, wrong);
#pragma unroll 1
  for (int base = 0; base < bag.count; base += kLanes) {
    const unsigned scale = row != kAbsent ? __ldg(bag.scales + row) : 0;
    if (row == kAbsent) row = 0;
    uint2 vector[tiles][4];
#pragma unroll
    for (int k = 0; k < 4 * tiles; k++) {
      const unsigned r = __shfl_sync(kAll, row, k / 4 * kTileRows + mine + k % 4);
      load(vector[k / 4][k % 4], first + row_offset<false>(bag, r));
    }
#pragma unroll
    for (int tile = 0; tile < tiles; tile++) {
      unsigned scales[4];
#pragma unroll
      for (int k = 0; k < 4; k++) scales[k] = __shfl_sync(kAll, scale, tile * kTileRows + mine + k);
      sum.add(vector[tile], scales);
    }
    row = row_of<false>(bag, next, base + kLanes + lane, wrong);
    next = index_at(bag, base + 2 * kLanes + lane);
  }
  column = inside ? first_column + mine : -1;
  return sum.finish();
}

// The bounds that tell the compiler how many registers there are. A generic instance carries more along, and speed is not
// what it is for.
template <typename weight_t>
constexpr int block_threads = launch::kThreadsOf<weight_t>;
template <typename weight_t, bool generic>
constexpr int resident_blocks =
    (generic && Row<weight_t>::kResidentWarps > 20 ? 20 : Row<weight_t>::kResidentWarps) / kWarps<weight_t>;

// What the warps of a block tell each other when they share a bag.
template <typename weight_t>
struct Shared {
  float4 sum[kWarps<weight_t>][kLanes];
  int counted[kWarps<weight_t>];
};

// One bag, by all warps of the block together, a slice each, or by this warp alone. write(column, four results, counted)
// is called once for every four columns, by the lane that has them. Without the whole block none of it may be called
// together: its warps wait for each other.
template <typename weight_t, bool generic, typename index_t, typename Scale, typename Write>
__device__ __forceinline__ void sum_bag(Bag<index_t> bag, bool together, const Scale& scale_of, const Write& write,
                                        Shared<weight_t>& shared, bool& wrong) {
  constexpr int warps = kWarps<weight_t>, columns = Row<weight_t>::kColumns, full = kRound / columns;
  const int lane = threadIdx.x, warp = threadIdx.y, all = bag.count;
  int from = 0;
  if (together) {
    const int slice = (all + warps - 1) / warps;
    from = min(warp * slice, all);
    bag.count = min(slice, all - from);
    bag.indices += from;
  }
  auto slice_scale_of = [&](int position) { return scale_of(from + position); };
  int lanes = full;
  while (lanes / 2 * columns >= bag.dim) lanes /= 2;

#pragma unroll 1
  for (int round = 0; round < bag.dim; round += kRound) {
    int column, counted = 0;
    float4 sum;
    if constexpr (!generic) {
      constexpr auto in_full = sum_round<weight_t, false, true, full, index_t, decltype(slice_scale_of)>;
      constexpr auto in_part = sum_round<weight_t, false, true, 0, index_t, decltype(slice_scale_of)>;
      if (lanes < full) {
        sum = in_part(bag, round, lanes, slice_scale_of, column, counted, wrong);
      } else if constexpr (Row<weight_t>::kTiled) {
        sum = sum_tiled_round(bag, round, column, wrong);
      } else {
        sum = in_full(bag, round, lanes, slice_scale_of, column, counted, wrong);
      }
      counted = all;
    } else if (Row<weight_t>::kQuantised || bag.aligned) {
      sum = sum_round<weight_t, true, true, 0>(bag, round, lanes, slice_scale_of, column, counted, wrong);
    } else if constexpr (!Row<weight_t>::kQuantised) {
      sum = sum_round<weight_t, true, false, 0>(bag, round, lanes, slice_scale_of, column, counted, wrong);
    }
    if (together && warps > 1) {
      shared.sum[warp][lane] = sum;
      if (generic) shared.counted[warp] = counted;
      __syncthreads();
      if (warp == 0) {
#pragma unroll
        for (int other = 1; other < warps; other++) {
          const float4 more = shared.sum[other][lane];
          if (generic && bag.largest) {
            sum = {fmaxf(sum.x, more.x), fmaxf(sum.y, more.y), fmaxf(sum.z, more.z), fmaxf(sum.w, more.w)};
          } else {
            sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
          }
          if (generic) counted += shared.counted[other];
        }
      }
      __syncthreads();
    }
    if ((!together || warp == 0) && column >= 0) write(column, sum, counted);
  }
}

}  // namespace gathered
