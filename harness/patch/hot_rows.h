// Which rows of which table a design is to pin, and how often. The rows live on the GPU once, from `set` on.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

namespace embedding_harness {

class HotRows {
 public:
  // Cheap enough for every lookup: whether any table has hot rows.
  bool any() const { return count_.load(std::memory_order_acquire) != 0; }

  // `rows`: int64, contiguous, on the table's device, each within the table. `renew_every`: prepare before every so
  // many lookups; 0: only when asked. Replaces what was set for this table.
  void set(const at::Tensor& weight, at::Tensor rows, int64_t renew_every) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // A good moment to let go of the rows of tables that no longer exist.
    for (auto entry = entries_.begin(); entry != entries_.end();) {
      entry = entry->second.storage.expired() ? entries_.erase(entry) : std::next(entry);
    }
    entries_.insert_or_assign(weight.const_data_ptr(), Entry{weight, std::move(rows), renew_every});
    count_.store(entries_.size(), std::memory_order_release);
  }

  void forget(const at::Tensor& weight) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (find(weight) != nullptr) entries_.erase(weight.const_data_ptr());
    count_.store(entries_.size(), std::memory_order_release);
  }

  void forget_all() {
    const std::lock_guard<std::mutex> lock(mutex_);
    entries_.clear();
    count_.store(0, std::memory_order_release);
  }

  std::optional<at::Tensor> of(const at::Tensor& weight) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Entry* entry = find(weight);
    return entry ? std::make_optional(entry->rows) : std::nullopt;
  }

  // The rows to pin before this lookup, if it is time; counts the lookup.
  std::optional<at::Tensor> due(const at::Tensor& weight) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Entry* entry = find(weight);
    if (entry == nullptr || entry->renew_every == 0) return std::nullopt;
    const bool now = entry->lookups++ % entry->renew_every == 0;
    return now ? std::make_optional(entry->rows) : std::nullopt;
  }

 private:
  struct Entry {
    Entry(const at::Tensor& weight, at::Tensor hot_rows, int64_t every)
        : storage(weight.storage().getWeakStorageImpl()),
          sizes(weight.sizes().vec()),
          strides(weight.strides().vec()),
          rows(std::move(hot_rows)),
          renew_every(every) {}

    // Holds no memory of the table, but keeps the storage's identity from being given to another one. So a table
    // allocated where a freed one lay is not taken for it.
    c10::weak_intrusive_ptr<c10::StorageImpl> storage;
    std::vector<int64_t> sizes;
    std::vector<int64_t> strides;
    at::Tensor rows;
    int64_t renew_every;
    int64_t lookups = 0;
  };

  // nn.Embedding's parameter, its `.data` and a detached alias are one table: same storage, same first element, same
  // shape. Precondition: the mutex is held.
  Entry* find(const at::Tensor& weight) {
    const auto found = entries_.find(weight.const_data_ptr());
    if (found == entries_.end()) return nullptr;
    Entry& entry = found->second;
    const bool same = entry.storage._unsafe_get_target() == weight.storage().unsafeGetStorageImpl() &&
                      weight.sizes() == entry.sizes && weight.strides() == entry.strides;
    return same ? &entry : nullptr;
  }

  std::mutex mutex_;
  std::atomic<std::size_t> count_{0};
  std::unordered_map<const void*, Entry> entries_;
};

}  // namespace embedding_harness
