// Lookups on the CPU: exact and plain, for development and as what GPUs are compared with. What a bag's rows come to is added
// up in float32 in their order.

#include <torch/csrc/stable/ops.h>

#include <cmath>
#include <limits>
#include <type_traits>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "lookup.h"

namespace embedding_kernels {
namespace {

using c10::BFloat16;
using c10::Half;

// Column `column` of a row.
float value(EkType type, const char* row, const Half* scale_bias, int64_t column) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(row);
  switch (type) {
    case EK_FLOAT32: return reinterpret_cast<const float*>(row)[column];
    case EK_FLOAT16: return reinterpret_cast<const Half*>(row)[column];
    case EK_BFLOAT16: return reinterpret_cast<const BFloat16*>(row)[column];
    case EK_INT8: return std::fma(static_cast<float>(bytes[column]), static_cast<float>(scale_bias[0]), static_cast<float>(scale_bias[1]));
    default: return std::fma(static_cast<float>(bytes[column / 2] >> column % 2 * 4 & 15), static_cast<float>(scale_bias[0]), static_cast<float>(scale_bias[1]));
  }
}

void store(const Call& call, int64_t at, float value) {
  switch (call.output_type) {
    case EK_FLOAT32: static_cast<float*>(call.args.output)[at] = value; break;
    case EK_FLOAT16: static_cast<Half*>(call.args.output)[at] = value; break;
    default: static_cast<BFloat16*>(call.args.output)[at] = value;
  }
}

int64_t number(EkType type, const void* numbers, int64_t at) {
  return type == EK_INT32 ? static_cast<const int32_t*>(numbers)[at] : static_cast<const int64_t*>(numbers)[at];
}

// A fault is counted, and the first is kept; where nobody counts, it is an error.
void tell(LookupFaults* faults, unsigned LookupFaults::*counter, const TableRows& table, int64_t bag, int64_t index, const char* what) {
  STD_TORCH_CHECK(faults != nullptr, "embedding_kernels: ", what, " ", index, " of table ", table.number, ", bag ", bag,
                  counter == &LookupFaults::rows ? ", which has " + std::to_string(table.rows) + " rows." : ".");
  faults->*counter += 1;
  if (faults->told++ != 0) {
    faults->told = 1;
    return;
  }
  faults->table = table.number, faults->bag = bag, faults->index = index;
}

void look_up_bag(const Group& group, const Call& call, const TableRows& table, int64_t bag, std::vector<float>& sum) {
  const TablesArgs& args = call.args;
  const int64_t at = table.number * call.n_bags + bag;
  const int64_t begin = number(call.index_type, args.offsets, at), asked_end = number(call.index_type, args.offsets, at + 1);
  const bool right = begin >= 0 && asked_end >= begin && asked_end <= call.n_indices;
  if (!right) tell(args.faults, &LookupFaults::offsets, table, bag, asked_end, "offsets descend or leave the indices at");
  const int64_t end = right ? asked_end : begin;
  const bool largest = table.mode == LOOKUP_MAX;
  sum.assign(table.dim, largest && end > begin ? -std::numeric_limits<float>::infinity() : 0.0f);
  for (int64_t i = begin; i < end; i++) {
    const int64_t row = number(call.index_type, args.indices, i);
    const bool known = row >= 0 && row < table.rows;
    if (!known) tell(args.faults, &LookupFaults::rows, table, bag, row, "there is no row");
    const char* const place = static_cast<const char*>(args.storage) + table.weights + (known ? row * table.row_stride_bytes : 0);
    const auto* const scale_bias = reinterpret_cast<const Half*>(static_cast<const char*>(args.storage) + table.scales) + (known ? 2 * row : 0);
    const float weight = call.sample_weights != nullptr ? call.sample_weights[i] : 1.0f;
    for (int64_t column = 0; column < table.dim; column++) {
      const float v = known ? value(group.row_type, place, scale_bias, column) * weight : 0.0f;
      sum[column] = largest ? std::fmax(sum[column], v) : sum[column] + v;
    }
  }
  const float divisor = table.mode == LOOKUP_MEAN && end > begin ? static_cast<float>(end - begin) : 1.0f;
  for (int64_t column = 0; column < table.dim; column++) store(call, bag * args.output_stride + table.column + column, sum[column] / divisor);
}

}  // namespace

void look_up_on_cpu(const Group& group, const Call& call) {
  // One thread where faults are counted, so that the first is the first.
  const auto bags = [&](int64_t first, int64_t last) {
    std::vector<float> sum;
    for (int64_t at = first; at < last; at++) {
      look_up_bag(group, call, call.args.tables[group.first + at / call.n_bags], at % call.n_bags, sum);
    }
  };
  const int64_t all = group.count * call.n_bags;
  if (call.args.faults != nullptr) {
    bags(0, all);
  } else {
    torch::stable::parallel_for(0, all, 64, bags);
  }
}

}  // namespace embedding_kernels
