// Where a table lies.
#pragma once

#include "tables_args.h"

__device__ __forceinline__ const char* weights_of(const TablesArgs& args, const TableRows& table) {
  return static_cast<const char*>(args.storage) + table.weights;
}
// The number of the launch's `which`-th table. Most often known without a look at the table, which would be a wait.
__device__ __forceinline__ lookup_int64 number_of(const TablesArgs& args, unsigned which) {
  return args.first_number >= 0 ? args.first_number + static_cast<int>(which) : args.tables[which].number;
}
// Scale and bias of each row, two float16 in a word.
__device__ __forceinline__ const unsigned* scales_of(const TablesArgs& args, const TableRows& table) {
  return reinterpret_cast<const unsigned*>(static_cast<const char*>(args.storage) + table.scales);
}
