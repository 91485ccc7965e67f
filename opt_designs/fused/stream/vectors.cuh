// What a lane loads of a row at a time, and what it makes of it: a vector of four columns of float32 or eight of a narrower
// type, in one load; or a narrow vector of 4 bytes, where rows are not whole vectors at multiples of 16 bytes.
#pragma once

#include "instructions.cuh"
#include "row_types.cuh"
#include "tables.cuh"

namespace fused {
namespace stream {

constexpr int kLanes = 32;

__device__ constexpr int log2_of(int n) { return n > 1 ? 1 + log2_of(n / 2) : 0; }

template <typename weight_t, bool narrow>
struct Vector {  // float16 and bfloat16
  typedef uint4 Word;
  static constexpr int kColumns = 8;
  static constexpr bool kQuantised = false;
  static constexpr float kTooMuch = 0;
  __device__ __forceinline__ static void widen(uint4 word, float (&v)[8]) {
    const unsigned words[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float2 two = gathered::low_high(words[i], weight_t());
      v[2 * i] = two.x, v[2 * i + 1] = two.y;
    }
  }
};
template <typename weight_t>
struct Vector<weight_t, true> {
  typedef unsigned Word;
  static constexpr int kColumns = 2;
  static constexpr bool kQuantised = false;
  static constexpr float kTooMuch = 0;
  __device__ __forceinline__ static void widen(unsigned word, float (&v)[2]) {
    const float2 two = gathered::low_high(word, weight_t());
    v[0] = two.x, v[1] = two.y;
  }
};
template <>
struct Vector<float, false> {
  typedef uint4 Word;
  static constexpr int kColumns = 4;
  static constexpr bool kQuantised = false;
  static constexpr float kTooMuch = 0;
  __device__ __forceinline__ static void widen(uint4 word, float (&v)[4]) {
    v[0] = __uint_as_float(word.x), v[1] = __uint_as_float(word.y);
    v[2] = __uint_as_float(word.z), v[3] = __uint_as_float(word.w);
  }
};
template <>
struct Vector<float, true> {
  typedef unsigned Word;
  static constexpr int kColumns = 1;
  static constexpr bool kQuantised = false;
  static constexpr float kTooMuch = 0;
  __device__ __forceinline__ static void widen(unsigned word, float (&v)[1]) { v[0] = __uint_as_float(word); }
};
template <>
struct Vector<Int8Row, false> {
  typedef uint2 Word;
  static constexpr int kColumns = 8;
  static constexpr bool kQuantised = true;
  static constexpr float kTooMuch = 0;  // of a widened value
  __device__ __forceinline__ static void widen(uint2 word, float (&v)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = gathered::byte_of(i < 4 ? word.x : word.y, i % 4);
  }
};
// Four bits as the first of a mantissa, under the exponent of 16: two cheap instructions for eight columns and one for each,
// and what is 16 too much is taken off once a row, with its bias.
template <>
struct Vector<Int4Row, false> {
  typedef unsigned Word;
  static constexpr int kColumns = 8;
  static constexpr bool kQuantised = true;
  static constexpr float kTooMuch = 16;
  __device__ __forceinline__ static void widen(unsigned word, float (&v)[8]) {
    const unsigned even = (word << 3 & 0x78787878u) | 0x80808080u, odd = (word >> 1 & 0x78787878u) | 0x80808080u;
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = __uint_as_float(__byte_perm(i % 2 ? odd : even, 0x41000000u, 0x7044 | i / 2 << 8));
  }
};
// Rows of these are padded to whole vectors, so there is no other kind.
template <>
struct Vector<Int8Row, true> : Vector<Int8Row, false> {};
template <>
struct Vector<Int4Row, true> : Vector<Int4Row, false> {};

// Writes neighbouring columns of an output row: as whole vectors, or none past the last.
template <bool narrow, int columns, typename output_t>
__device__ __forceinline__ void write(output_t* at, const float (&v)[columns], int columns_left) {
  if constexpr (narrow) {
#pragma unroll
    for (int i = 0; i < columns; i++) {
      if (i < columns_left) at[i] = static_cast<output_t>(v[i]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < columns; i += 4) gathered::store<true>(at + i, {v[i], v[i + 1], v[i + 2], v[i + 3]}, 4);
  }
}

// Whether a table's rows, or its part of output rows, are anything but whole vectors where vectors may begin.
template <typename weight_t, typename output_t>
__device__ __forceinline__ bool is_narrow(const TablesArgs& args, const TableRows& table) {
  typedef Vector<weight_t, false> Wide;
  const size_t output = reinterpret_cast<size_t>(args.output) | (args.output_stride | table.column) * sizeof(output_t);
  if (output % (4 * sizeof(output_t)) != 0 || table.dim % Wide::kColumns != 0) return true;
  return !Wide::kQuantised && (reinterpret_cast<size_t>(weights_of(args, table)) | table.row_stride_bytes) % sizeof(typename Wide::Word) != 0;
}

// How a table's rows lie on lanes.
struct Layout {
  bool narrow;
  unsigned lanes_log;  // lanes that share a row, as a power of two: as many as have vectors of it, or a few more
  unsigned rounds;     // of wide rows: a whole warp has that many vectors each
};
template <typename weight_t>
__device__ __forceinline__ Layout layout_of(bool narrow, int dim) {
  const unsigned columns = narrow ? Vector<weight_t, true>::kColumns : Vector<weight_t, false>::kColumns;
  const unsigned vectors = (dim + columns - 1) / columns;
  const unsigned lanes_log = vectors <= 1 ? 0 : kLanes - __clz(static_cast<int>(min(vectors, static_cast<unsigned>(kLanes)) - 1));
  return {narrow, lanes_log, (vectors - 1) / kLanes + 1};
}

}  // namespace stream
}  // namespace fused
