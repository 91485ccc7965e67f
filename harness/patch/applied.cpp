// Takes designs as Python read them from their manifests, and tells what is applied and what ran.

#include "applied.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <torch/library.h>

#include "calls.h"

namespace embedding_harness {
namespace {

using Strings = std::vector<std::string>;

struct Definitions {
  std::mutex mutex;
  std::unordered_map<std::string, std::unique_ptr<Design>> designs;
};

Definitions& definitions() {
  static Definitions* const only = new Definitions();
  return *only;
}

at::ScalarType scalar_type(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "float16") return at::kHalf;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "int8") return at::kByte;
  if (name == "int4") return kFourBits;
  if (name == "int32") return at::kInt;
  if (name == "int64") return at::kLong;
  if (name.empty()) return at::ScalarType::Undefined;  // what a kernel has no type of
  TORCH_CHECK(false, "The patch does not know the dtype '", name, "' of the manifest.");
}

std::vector<at::ScalarType> scalar_types(const Strings& names) {
  std::vector<at::ScalarType> types;
  for (const auto& name : names) types.push_back(scalar_type(name));
  return types;
}

// The places in LOOKUP_FIELDS of the fields that a manifest names.
std::vector<std::size_t> places(const Strings& names) {
#define LOOKUP_NAME(type, name) #name,
  const Strings fields = {LOOKUP_FIELDS(LOOKUP_NAME)};
#undef LOOKUP_NAME
  TORCH_CHECK(names.size() <= fields.size(), "The manifest names ", names.size(), " parameters; there are ",
              fields.size(), ".");
  std::vector<std::size_t> found;
  for (const auto& name : names) {
    const auto at = std::find(fields.begin(), fields.end(), name);
    TORCH_CHECK(at != fields.end(), "The patch does not know the parameter '", name, "' of the manifest.");
    found.push_back(static_cast<std::size_t>(at - fields.begin()));
  }
  return found;
}

LaunchShape launch_shape(const std::vector<int64_t>& numbers, std::size_t at = 0) {
  return {numbers.at(at), numbers.at(at + 1), numbers.at(at + 2), numbers.at(at + 3), numbers.at(at + 4)};
}

// `identity` tells equal designs, which are kept loaded. The lists after `launch` have an element per kernel.
void define(std::string identity, std::string name, const Strings& dtypes, const Strings& index_dtypes,
            const Strings& modes, bool weighted, bool padding, int64_t max_dim, int64_t dim_multiple, bool prepares,
            bool output_only, const std::vector<int64_t>& launch, const Strings& special_functions,
            const std::vector<int64_t>& special_launches, const std::vector<int64_t>& special_when,
            const Strings& functions, const std::vector<int64_t>& archs, const Strings& cubins, const Strings& symbols,
            const Strings& kernel_dtypes, const Strings& kernel_index_dtypes, const Strings& kernel_output_dtypes,
            const c10::List<bool>& kernel_general, const std::vector<int64_t>& kernel_threads_y,
            const Strings& parameters) {
  Definitions& state = definitions();
  const std::lock_guard<std::mutex> lock(state.mutex);
  std::unique_ptr<Design>& design = state.designs[identity];
  if (design != nullptr) return;
  auto fresh = std::make_unique<Design>();
  fresh->name = name;
  fresh->supports = {scalar_types(dtypes),
                     scalar_types(index_dtypes),
                     contains<std::string>(modes, "sum"),
                     contains<std::string>(modes, "mean"),
                     contains<std::string>(modes, "max"),
                     weighted,
                     padding,
                     max_dim,
                     dim_multiple};
  fresh->shape = launch_shape(launch);
  for (std::size_t i = 0; i < special_functions.size(); i++) {
    const auto when = [&](std::size_t n) { return special_when.at(kWhenNumbers * i + n); };
    fresh->specials.push_back({special_functions[i],
                               launch_shape(special_launches, i * kLaunchNumbers),
                               when(0),
                               {when(1), when(2)},
                               {when(3), when(4)},
                               when(5)});
  }
  fresh->prepares = prepares;
  fresh->output_only = output_only;
  const std::vector<std::size_t> order = places(parameters);
  for (std::size_t i = 0; i < symbols.size(); i++) {
    const Instance instance{functions.at(i), scalar_type(kernel_dtypes.at(i)), scalar_type(kernel_index_dtypes.at(i)),
                            scalar_type(kernel_output_dtypes.at(i)), kernel_general.get(i)};
    fresh->kernels.push_back({instance, static_cast<int>(archs.at(i)), cubins.at(i), symbols[i], kernel_threads_y.at(i),
                              instance.function == "lookup" ? order : std::vector<std::size_t>()});
  }
  design = std::move(fresh);
}

// Calls of a design, calls of PyTorch's own kernel, the last kernel launched and its architecture, and why the last
// call went to PyTorch's own.
std::tuple<int64_t, int64_t, std::string, std::string, std::string> counted() {
  const Calls& counts = calls();
  const Kernel* last = counts.last_kernel.load();
  return {counts.by_design.load(), counts.by_stock.load(), last ? last->symbol : "",
          last ? "sm_" + std::to_string(last->arch) : "", counts.last_refusal.load()};
}

}  // namespace

const Design& defined(const std::string& identity) {
  Definitions& state = definitions();
  const std::lock_guard<std::mutex> lock(state.mutex);
  return *state.designs.at(identity);
}

TORCH_LIBRARY_FRAGMENT(embedding_harness, library) {
  library.def(
      "define(str identity, str name, str[] dtypes, str[] index_dtypes, str[] modes, bool weighted, bool padding, "
      "int max_dim, int dim_multiple, bool prepares, bool output_only, int[] launch, str[] special_functions, "
      "int[] special_launches, int[] special_when, str[] functions, int[] archs, str[] cubins, str[] symbols, str[] "
      "kernel_dtypes, str[] kernel_index_dtypes, str[] kernel_output_dtypes, "
      "bool[] kernel_general, int[] kernel_threads_y, str[] parameters) -> ()",
      &define);
  library.def("calls", &counted);
}

}  // namespace embedding_harness
