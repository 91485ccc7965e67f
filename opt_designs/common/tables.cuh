// Where a table lies.
#pragma once

#include "tables_args.h"

__device__ __forceinline__ const char* weights_of(const TablesArgs& args, const TableRows& table) {
  return static_cast<const char*>(args.storage) + table.weights;
}
// Scale and bias of each row, two float16 in a word.
__device__ __forceinline__ const unsigned* scales_of(const TablesArgs& args, const TableRows& table) {
  return reinterpret_cast<const unsigned*>(static_cast<const char*>(args.storage) + table.scales);
}
