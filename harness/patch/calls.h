// What ran, of EmbeddingBag and of embedding_bags together.
#pragma once

#include <atomic>
#include <cstdint>

#include "design.h"

namespace embedding_harness {

struct Calls {
  std::atomic<int64_t> by_design{0};
  std::atomic<int64_t> by_stock{0};
  std::atomic<const Kernel*> last_kernel{nullptr};
  std::atomic<const char*> last_refusal{""};

  void count(const Kernel& kernel) {
    last_kernel.store(&kernel, std::memory_order_relaxed);
    by_design.fetch_add(1, std::memory_order_relaxed);
  }
  // `why`: a literal.
  void count_stock(const char* why) {
    last_refusal.store(why, std::memory_order_relaxed);
    by_stock.fetch_add(1, std::memory_order_relaxed);
  }
  void start_again() {
    by_design = 0;
    by_stock = 0;
    last_kernel = nullptr;
    last_refusal = "";
  }
};

inline Calls& calls() {
  static Calls only;
  return only;
}

}  // namespace embedding_harness
