// Lookups on the CPU: exact and plain, for development and as what GPUs are compared with. A bag's rows are added up in
// float32, in their order.
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cmath>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "error.h"
#include "lookup.h"

namespace embedding_kernels {
namespace {

using c10::BFloat16;
using c10::Half;

// What was wrong with a call, as LookupFaults says it; of the first in the order of tables, bags and indices.
struct Found {
  std::mutex mutex;
  unsigned rows = 0, offsets = 0;
  struct First {
    int64_t table, bag, position, index;
    bool is_row;
    int64_t rows;  // of the table
    bool operator<(const First& other) const {
      return std::tie(table, bag, position) < std::tie(other.table, other.bag, other.position);
    }
  };
  std::optional<First> first;

  void tell(const First& fault) {
    const std::lock_guard<std::mutex> lock(mutex);
    (fault.is_row ? rows : offsets)++;
    if (!first.has_value() || fault < *first) first = fault;
  }
};

int64_t number(Type type, const void* numbers, int64_t at) {
  return type == kInt32 ? static_cast<const int32_t*>(numbers)[at] : static_cast<const int64_t*>(numbers)[at];
}

// Columns of one row, widened into `values`.
void widen(int64_t row_type, const char* row, const Half* scale_bias, std::vector<float>& values) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(row);
  const auto scaled = [&](int q) { return std::fma(static_cast<float>(q), scale_bias[0], scale_bias[1]); };
  for (std::size_t c = 0; c < values.size(); c++) {
    switch (row_type) {
      case kFloat32:
        values[c] = reinterpret_cast<const float*>(row)[c];
        break;
      case kFloat16:
        values[c] = reinterpret_cast<const Half*>(row)[c];
        break;
      case kBFloat16:
        values[c] = reinterpret_cast<const BFloat16*>(row)[c];
        break;
      case kInt8:
        values[c] = scaled(bytes[c]);
        break;
      default:
        values[c] = scaled(bytes[c / 2] >> (c % 2 * 4) & 15);
    }
  }
}

void store(const Call& call, int64_t at, float value) {
  switch (call.output_type) {
    case kFloat32:
      static_cast<float*>(call.args.output)[at] = value;
      break;
    case kFloat16:
      static_cast<Half*>(call.args.output)[at] = value;
      break;
    default:
      static_cast<BFloat16*>(call.args.output)[at] = value;
  }
}

void look_up_bag(const Call& call, int64_t row_type, const TableRows& table, int64_t bag, Found& found) {
  const TablesArgs& args = call.args;
  const int64_t at = table.number * args.n_bags + bag;
  const int64_t begin = number(call.index_type, args.offsets, at), end = number(call.index_type, args.offsets, at + 1);
  const bool right = begin >= 0 && end >= begin && end <= args.n_indices;
  if (!right) found.tell({table.number, bag, -1, end, false, table.rows});
  const int64_t count = right ? end - begin : 0;
  const bool largest = table.mode == LOOKUP_MAX;
  const auto dim = static_cast<std::size_t>(table.dim);
  std::vector<float> values(dim), sum(dim, largest && count > 0 ? -std::numeric_limits<float>::infinity() : 0.0f);
  const char* const storage = static_cast<const char*>(args.storage);
  for (int64_t i = begin; i < begin + count; i++) {
    const int64_t row = number(call.index_type, args.indices, i);
    if (row < 0 || row >= table.rows) {
      found.tell({table.number, bag, i, row, true, table.rows});
      values.assign(dim, 0.0f);
    } else {
      widen(row_type, storage + table.weights + row * table.row_stride_bytes,
            reinterpret_cast<const Half*>(storage + table.scales) + 2 * row, values);
    }
    const float weight = args.sample_weights != nullptr ? args.sample_weights[i] : 1.0f;
    for (std::size_t c = 0; c < dim; c++) {
      sum[c] = largest ? std::fmax(sum[c], values[c] * weight) : sum[c] + values[c] * weight;
    }
  }
  const float divisor = table.mode == LOOKUP_MEAN && count > 0 ? static_cast<float>(count) : 1.0f;
  const int64_t output = bag * args.output_stride + table.column;
  for (std::size_t c = 0; c < dim; c++) store(call, output + static_cast<int64_t>(c), sum[c] / divisor);
}

// Counts what was wrong, or fails where nobody counts.
void account(const Found& found, LookupFaults* faults, int64_t features) {
  if (!found.first.has_value()) return;
  const Found::First& first = *found.first;
  if (faults == nullptr) {
    // What stands at this place among the bags: of a table that is called by itself always the first.
    const std::string of = features == 1 ? "" : "feature " + std::to_string(first.table) + ", ";
    require(!first.is_row, "embedding_kernels: there is no row ", first.index, " in a table of ", first.rows, " rows (",
            of, "bag ", first.bag, ").");
    fail("embedding_kernels: offsets descend or leave the indices at ", first.index, " (", of, "bag ", first.bag, ").");
  }
  static std::mutex counting;  // of several threads that look up in the same tables
  const std::lock_guard<std::mutex> lock(counting);
  faults->rows += found.rows, faults->offsets += found.offsets;
  if (faults->told != 0) return;
  faults->told = 1;
  faults->table = static_cast<int>(first.table), faults->bag = first.bag, faults->index = first.index;
}

}  // namespace

void look_up_on_cpu(const Call& call) {
  Found found;
  for (const Group& group : call.groups) {
    torch::stable::parallel_for(0, group.count * call.args.n_bags, 64, [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last; at++) {
        const TableRows& table = call.args.tables[group.first + at / call.args.n_bags];
        look_up_bag(call, group.row_type, table, at % call.args.n_bags, found);
      }
    });
  }
  account(found, call.args.faults, call.n_features);
}

}  // namespace embedding_kernels
