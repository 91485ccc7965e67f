// Designs that Python described, and which of them are in force.
#pragma once

#include <atomic>
#include <string>

#include "design.h"

namespace embedding_harness {

// In force: lookups read these without a lock. Nothing that they point to is ever freed, at the end of the process
// either: CUDA and the dispatcher may be gone by then.
struct Applied {
  std::atomic<const Design*> per_table{nullptr};   // in the place of EmbeddingBag
  std::atomic<const Design*> all_tables{nullptr};  // serves embedding_bags
};

inline Applied& applied() {
  static Applied only;
  return only;
}

// The design that was defined as `identity`.
const Design& defined(const std::string& identity);

}  // namespace embedding_harness
