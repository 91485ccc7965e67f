// What the patch was told of a design, field by field, for tests that say what they told it.
#include <sstream>
#include <string>

#include <torch/library.h>

#include "applied.h"

namespace embedding_harness {
namespace {

template <typename Numbers>
std::string listed(const Numbers& numbers) {
  std::ostringstream text;
  for (const auto& number : numbers) text << (text.tellp() > 0 ? " " : "") << number;
  return text.str();
}

std::string of(const LaunchShape& shape) {
  std::ostringstream text;
  text << shape.threads_x << " threads, " << shape.blocks << " blocks, " << shape.bags_per_block << " bags, "
       << shape.columns_per_block << " columns, " << shape.blocks_per_sm << " per multiprocessor";
  return text.str();
}

std::string told(std::string identity) {
  const Design& design = defined(identity);
  const Supports& takes = design.supports;
  std::ostringstream text;
  text << std::boolalpha << design.name << ": " << listed(takes.dtypes) << "; " << listed(takes.index_dtypes)
       << "; sum " << takes.modes.sum << ", mean " << takes.modes.mean << ", max " << takes.modes.max << "; weighted "
       << takes.weighted << ", padding " << takes.padding << ", max_dim " << takes.max_dim << ", dim_multiple "
       << takes.dim_multiple << ", prepares " << design.prepares << ", output_only " << design.output_only << "; "
       << of(design.shape) << "\n";
  for (const Special& special : design.specials) {
    text << special.function << ": alike " << (special.alike.has_value() ? (*special.alike ? "yes" : "no") : "either")
         << ", rows " << listed(special.rows_per_bag) << ", bags " << listed(special.bags_per_multiprocessor)
         << ", columns " << listed(special.columns) << ", tables " << special.tables_at_once << "; "
         << of(special.shape) << "\n";
  }
  for (const Kernel& kernel : design.kernels) {
    const Instance& instance = kernel.instance;
    text << instance.function << ": " << instance.dtype << " to " << instance.output_dtype << ", "
         << instance.index_dtype << ", generic " << instance.generic << ", sm_" << kernel.arch << ", " << kernel.cubin
         << ", " << kernel.symbol << ", " << kernel.threads_y << " threads, order " << listed(kernel.order.places)
         << "\n";
  }
  return text.str();
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(embedding_harness, library) { library.def("told", &told); }

}  // namespace embedding_harness
