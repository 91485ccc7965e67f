// One call of lookup, as the host sees it.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels.h"
#include "tables_args.h"

namespace embedding_kernels {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

struct Call {
  TablesArgs args{};  // of all tables
  EkType index_type, output_type;
  int64_t n_features = 0, n_bags = 0, n_indices = 0;
  const float* sample_weights = nullptr;
};

// Neighbouring tables of one type of rows; `groups` of the operator has these numbers of each.
struct Group {
  EkType row_type;
  int64_t first, count;
  int64_t most_columns;  // of the widest
  int64_t row_bits;      // all rows' places, strides and widths in bytes, one or the other
  int64_t column_bits;   // all tables' columns in the output and widths, and the output's, one or the other
  int64_t flags;
  enum : int64_t {
    kAlike = 1,    // one width, one mode, one after the other in the output
    kLargest = 2,  // some are of the mode max
    kHuge = 4,     // some have no rows, 2^31 - 1 or more, or rows 4 GiB apart; or lie so that no narrow vector is whole
  };
  bool has(int64_t flag) const { return (flags & flag) != 0; }
};
constexpr std::size_t kGroupNumbers = 7;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The sums of a group's tables, into the call's output.
void look_up_on_cpu(const Group& group, const Call& call);

}  // namespace embedding_kernels
