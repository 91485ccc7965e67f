// One call of the operator, as the host sees it.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "tables_args.h"

namespace embedding_kernels {

// The operator's `numbers`: how many tables' bags there are in the indices, the columns of an output and its type; and
// then of each group of tables what `Group` has, in its order.
constexpr std::size_t kCallNumbers = 3;

// Neighbouring tables of one type of rows, for one design.
struct Group {
  int64_t row_type;
  int64_t first, count;  // among the described tables
  int64_t first_number;  // TablesArgs::first_number
  int64_t most_columns;  // of the widest
  int64_t row_bits;      // of all rows their places, strides and widths in bytes, one or the other
  int64_t column_bits;   // of all tables their first columns in the output and widths, one or the other
  int64_t flags;
  int64_t design;
  // In the place of what kernels.txt has as limits of rows per bag and of bags per multiprocessor, between special
  // kernels; or kUsual.
  int64_t few_rows, many_bags;
  // In the place of what follows from the GPU's rates as TablesArgs::crowded_clocks, and less than kMostCrowdedClocks;
  // or kUsual.
  int64_t crowded_clocks;

  static constexpr int64_t kUsual = -1;
  // Kernels multiply it by at most 128 steps (opt_designs/fused/large/walk.cuh), in 32 bits.
  static constexpr int64_t kMostCrowdedClocks = int64_t{1} << 24;
  enum : int64_t {
    kAlike = 1,    // one width, one mode other than max, one behind the other in the output
    kLargest = 2,  // some are of the mode max
    kHuge = 4,     // some have no rows, 2^31 - 1 or more, or rows 4 GiB apart
    kWhole = 8,    // rows are whole groups of 16 bytes
  };
  bool has(int64_t flag) const { return (flags & flag) != 0; }
};
constexpr std::size_t kGroupNumbers = sizeof(Group) / sizeof(int64_t);

struct Call {
  TablesArgs args;  // of all tables
  Type index_type, output_type;
  int64_t n_features;   // how many tables' bags there are in the indices
  int64_t output_bits;  // the output's address and the bytes from one of its rows to the next, one or the other
  std::vector<Group> groups;
};

inline int64_t bytes_of(Type output_type) { return output_type == kFloat32 ? 4 : 2; }

// The sums of all tables, on the CPU.
void look_up_on_cpu(const Call& call);
// On the device, which is the current one, behind what is queued on the stream. Gives the call its tickets.
void look_up_on_gpu(Call& call, int device, CUstream stream);

}  // namespace embedding_kernels
