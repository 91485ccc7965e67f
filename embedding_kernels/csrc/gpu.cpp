// Lookups on a GPU: one launch for each type of rows and design, or a few where a kernel takes fewer tables at once.
// Nothing is waited for and nothing allocated, so a CUDA graph may capture it.
#include <algorithm>

#include "error.h"
#include "launching/grid.h"
#include "launching/tickets.h"
#include "lookup.h"

namespace embedding_kernels {
namespace {

using launching::ceil_div;

// `instead`: what stands in the place of every limit, or kUsual.
bool is_within(int64_t number, const int64_t (&limits)[2], int64_t scale, int64_t instead) {
  const auto limit = [instead](int64_t usual) { return instead == Group::kUsual || usual == 0 ? usual : instead; };
  return number >= limit(limits[0]) * scale && (limits[1] == 0 || number < limit(limits[1]) * scale);
}

// What a group is to this call; see tables_args.h.
struct Kind {
  bool fast;   // special kernels may be told of it
  bool whole;  // rows and outputs are whole vectors
  bool alike;  // and the tables are alike
};

Kind kind_of(const Group& group, const Call& call) {
  if (call.args.sample_weights != nullptr || group.has(Group::kLargest)) return {false, false, false};
  const int64_t row_bits = group.row_bits | reinterpret_cast<int64_t>(call.args.storage);
  const int64_t output_bits = group.column_bits * bytes_of(call.output_type) | call.output_bits;
  const int64_t narrow = group.row_type == kInt8 || group.row_type == kInt4 ? 16 : 4;
  // Kernels count the bags of all tables in 32 bits, once for every 128 columns.
  const bool fast = !group.has(Group::kHuge) && row_bits % narrow == 0 &&
                    call.args.n_bags * group.count * ceil_div(group.most_columns, 128) <= launching::kMostCounted;
  const bool whole =
      !group.has(Group::kHuge) && group.has(Group::kWhole) && row_bits % 16 == 0 && output_bits % 16 == 0;
  return {fast, whole, whole && group.has(Group::kAlike)};
}

bool is_for(const Route& route, const Kind& kind, const Group& group, const Call& call, int64_t multiprocessors) {
  if (!kind.fast || (route.alike >= 0 && (route.alike == 1) != kind.alike)) return false;
  return is_within(call.args.n_indices, route.rows_per_bag, call.args.n_bags * call.n_features, group.few_rows) &&
         is_within(call.args.n_bags, route.bags_per_sm, multiprocessors, group.many_bags) &&
         is_within(group.most_columns, route.columns, 1, Group::kUsual);
}

struct Choice {
  const Route* route;
  const LoadedKernel* kernel;
};

// The first special kernel that is made for the call's shape and types, otherwise the one for any call.
Choice choose(const Kernels& all, const Loaded& loaded, const Group& group, const Call& call) {
  const Kind kind = kind_of(group, call);
  for (const Route& route : all.special()) {
    if (!is_for(route, kind, group, call, loaded.gpu.multiprocessors)) continue;
    if (const auto* kernel = loaded.find(route.function, call.output_type, call.index_type, false)) {
      return {&route, kernel};
    }
  }
  const bool fast = all.any().alike == 1 ? kind.alike : kind.whole;
  const LoadedKernel* kernel = loaded.find(all.any().function, call.output_type, call.index_type, !fast);
  require(kernel != nullptr, "embedding_kernels: there is no kernel that writes this dtype from these rows.");
  return {&all.any(), kernel};
}

void launch(const Driver& driver, const Choice& choice, const Group& group, const Call& call, const Loaded& loaded,
            CUstream stream) {
  const Route& route = *choice.route;
  const Kernel& kernel = *choice.kernel->kernel;
  const bool stays = route.blocks_per_sm > 0;
  const int64_t allowed = stays ? group.count : launching::kMaxRowsOfBlocks;
  const int64_t at_once = route.tables_at_once > 0 ? std::min(route.tables_at_once, allowed) : allowed;
  // As many tables in each launch as in every other, or one more.
  const int64_t each = ceil_div(group.count, ceil_div(group.count, at_once));
  const int64_t blocks = ceil_div(call.args.n_bags, route.bags_per_block);
  TablesArgs args = call.args;
  args.dim = group.most_columns;
  args.crowded_clocks = group.crowded_clocks == Group::kUsual ? loaded.gpu.crowded_clocks : group.crowded_clocks;
  for (int64_t at = 0; at < group.count; at += each) {
    args.tables = call.args.tables + group.first + at;
    args.n_tables = std::min(each, group.count - at);
    args.first_number = group.first_number < 0 ? -1 : static_cast<int>(group.first_number + at);
    const int64_t x =
        stays ? std::min(blocks * args.n_tables, route.blocks_per_sm * loaded.gpu.multiprocessors) : blocks;
    require(x <= launching::kMaxBlocks, "embedding_kernels: ", call.args.n_bags,
            " bags are more than one launch has room for.");
    void* parameters[] = {&args};
    driver.launch(choice.kernel->function, kernel.symbol, {x, stays ? 1 : args.n_tables}, route.threads_x,
                  kernel.threads_y, stream, parameters);
  }
  last_kernel().store(&kernel, std::memory_order_relaxed);
}

// Never freed: at the end of the process CUDA may be gone.
launching::TicketBooth& tickets() {
  static auto* const only = new launching::TicketBooth();
  return *only;
}

}  // namespace

void look_up_on_gpu(Call& call, int device, CUstream stream) {
  const Driver& driver = Driver::get();
  for (const Group& group : call.groups) {
    const Kernels& all = Kernels::of(group.design);
    const Loaded& loaded = all.on(device, static_cast<Type>(group.row_type));
    if (call.args.tickets == nullptr) call.args.tickets = tickets().of(driver, device, stream);
    launch(driver, choose(all, loaded, group, call), group, call, loaded, stream);
  }
}

}  // namespace embedding_kernels
