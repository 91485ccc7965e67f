// One call of embedding_bags: its arguments once they are known to fit each other.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

#include "design.h"
#include "plan.h"

namespace embedding_harness {

// A call that `checked` returned.
struct TablesCall {
  at::TensorList weights;  // a table each, [rows, columns], of one type, on one device; quantised ones [rows, bytes]
  at::TensorList scales;   // a table each, [rows, 2] float16 or its bits as int16; none unless rows are quantised
  at::ScalarType row_type;
  int64_t dim;         // of the widest table; of quantised ones all have it
  int64_t columns;     // of all tables
  at::Tensor indices;  // of one type with offsets, contiguous
  at::Tensor offsets;
  int64_t mode;
  std::optional<at::Tensor> sample_weights;  // float32, contiguous
  at::ScalarType output_type;

  int64_t n_tables() const { return static_cast<int64_t>(weights.size()); }
  int64_t n_bags() const { return (offsets.numel() - 1) / n_tables(); }
  bool quantised() const { return row_type == at::kByte || row_type == kFourBits; }
  int64_t dim_of(std::size_t table) const { return quantised() ? dim : weights[table].size(1); }
  // Bytes of the values of a row of so many columns.
  int64_t row_bytes(int64_t columns_of_row) const {
    return row_type == kFourBits ? ceil_div(columns_of_row, 2)
                                 : columns_of_row * static_cast<int64_t>(c10::elementSize(row_type));
  }
};

// Float tables, or quantised ones of `row_type`: "int8" or "int4".
struct GivenTables {
  at::TensorList weights;
  at::TensorList scales = {};
  std::string row_type = "";
  int64_t dim = 0;  // of quantised ones
};

// What is asked of the tables.
struct Lookup {
  const at::Tensor& indices;
  const at::Tensor& offsets;
  int64_t mode;
  const std::optional<at::Tensor>& sample_weights;
  std::optional<at::ScalarType> output_type;
};

// The type of rows; errors as of `checked`.
at::ScalarType row_type_of(const GivenTables& given);

// The type that a lookup writes.
at::ScalarType output_type_of(const Lookup& lookup, at::ScalarType row_type);

// The call, or ValueError or TypeError that says what is wrong with it. Looks at shapes, strides, types and devices,
// and at no element.
TablesCall checked(const GivenTables& given, const Lookup& lookup);

}  // namespace embedding_harness
