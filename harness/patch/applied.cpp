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
#include "named_fields.h"

namespace embedding_harness {

template <>
struct Wire<at::ScalarType> {
  static constexpr const char* schema = "str";
  static at::ScalarType read(const c10::IValue& value) {
    const std::string& name = value.toStringRef();
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
};

template <>
struct Wire<std::vector<at::ScalarType>> {
  static constexpr const char* schema = "str[]";
  static std::vector<at::ScalarType> read(const c10::IValue& value) {
    std::vector<at::ScalarType> types;
    for (const c10::IValue& name : value.toListRef()) types.push_back(Wire<at::ScalarType>::read(name));
    return types;
  }
};

template <>
struct Wire<Modes> {
  static constexpr const char* schema = "str[]";
  static Modes read(const c10::IValue& value) {
    const auto names = value.to<std::vector<std::string>>();
    return {contains<std::string>(names, "sum"), contains<std::string>(names, "mean"),
            contains<std::string>(names, "max")};
  }
};

// From the names of fields.
template <>
struct Wire<LookupOrder> {
  static constexpr const char* schema = "str[]";
  static LookupOrder read(const c10::IValue& value) {
#define LOOKUP_NAME(type, name) #name,
    const std::vector<std::string> fields = {LOOKUP_FIELDS(LOOKUP_NAME)};
#undef LOOKUP_NAME
    const auto names = value.to<std::vector<std::string>>();
    TORCH_CHECK(names.size() <= fields.size(), "The manifest names ", names.size(), " parameters; there are ",
                fields.size(), ".");
    LookupOrder order;
    for (const auto& name : names) {
      const auto at = std::find(fields.begin(), fields.end(), name);
      TORCH_CHECK(at != fields.end(), "The patch does not know the parameter '", name, "' of the manifest.");
      order.places.push_back(static_cast<std::size_t>(at - fields.begin()));
    }
    return order;
  }
};

namespace {

// The names are those of harness/patch/manifest.py.

template <typename Struct>
void add_launch(Fields<Struct>& fields) {
  fields.insert(fields.end(), {
                                  {"threads_x", [](Struct& s) -> auto& { return s.shape.threads_x; }},
                                  {"blocks", [](Struct& s) -> auto& { return s.shape.blocks; }},
                                  {"bags_per_block", [](Struct& s) -> auto& { return s.shape.bags_per_block; }},
                                  {"columns_per_block", [](Struct& s) -> auto& { return s.shape.columns_per_block; }},
                                  {"blocks_per_sm", [](Struct& s) -> auto& { return s.shape.blocks_per_sm; }},
                              });
}

Fields<Description> description_fields() {
  Fields<Description> fields = {
      {"design", [](Description& d) -> auto& { return d.name; }},
      {"dtypes", [](Description& d) -> auto& { return d.supports.dtypes; }},
      {"index_dtypes", [](Description& d) -> auto& { return d.supports.index_dtypes; }},
      {"modes", [](Description& d) -> auto& { return d.supports.modes; }},
      {"weighted", [](Description& d) -> auto& { return d.supports.weighted; }},
      {"padding", [](Description& d) -> auto& { return d.supports.padding; }},
      {"max_dim", [](Description& d) -> auto& { return d.supports.max_dim; }},
      {"dim_multiple", [](Description& d) -> auto& { return d.supports.dim_multiple; }},
      {"prepares", [](Description& d) -> auto& { return d.prepares; }},
      {"output_only", [](Description& d) -> auto& { return d.output_only; }},
  };
  add_launch(fields);
  return fields;
}

Fields<Special> special_fields() {
  Fields<Special> fields = {
      {"function", [](Special& s) -> auto& { return s.function; }},
      {"alike", [](Special& s) -> auto& { return s.alike; }},
      {"rows_per_bag", [](Special& s) -> auto& { return s.rows_per_bag; }},
      {"bags_per_sm", [](Special& s) -> auto& { return s.bags_per_multiprocessor; }},
      {"columns", [](Special& s) -> auto& { return s.columns; }},
      {"tables_at_once", [](Special& s) -> auto& { return s.tables_at_once; }},
  };
  add_launch(fields);
  return fields;
}

Fields<Kernel> kernel_fields() {
  return {
      {"function", [](Kernel& k) -> auto& { return k.instance.function; }},
      {"dtype", [](Kernel& k) -> auto& { return k.instance.dtype; }},
      {"index_dtype", [](Kernel& k) -> auto& { return k.instance.index_dtype; }},
      {"output_dtype", [](Kernel& k) -> auto& { return k.instance.output_dtype; }},
      {"generic", [](Kernel& k) -> auto& { return k.instance.generic; }},
      {"arch", [](Kernel& k) -> auto& { return k.arch; }},
      {"cubin", [](Kernel& k) -> auto& { return k.cubin; }},
      {"symbol", [](Kernel& k) -> auto& { return k.symbol; }},
      {"threads_y", [](Kernel& k) -> auto& { return k.threads_y; }},
      {"parameters", [](Kernel& k) -> auto& { return k.order; }},
  };
}

struct Definitions {
  std::mutex mutex;
  std::unordered_map<std::string, std::unique_ptr<const Design>> designs;
};

Definitions& definitions() {
  static Definitions* const only = new Definitions();
  return *only;
}

// What this thread is being told of a design. Nobody else sees it before it is complete; one that was left half told is
// dropped when the next begins.
std::unique_ptr<Design>& being_told() {
  thread_local std::unique_ptr<Design> only;
  return only;
}

Design& begun() {
  TORCH_CHECK(being_told() != nullptr, "No design has been begun in this thread: call begin_design first.");
  return *being_told();
}

void begin_design(Description description) {
  being_told() = std::make_unique<Design>();
  static_cast<Description&>(*being_told()) = std::move(description);
}

void add_special(Special special) { begun().specials.push_back(std::move(special)); }

void add_kernel(Kernel kernel) { begun().kernels.push_back(std::move(kernel)); }

// `identity` tells equal designs: of one that is known the first is kept, and what is loaded of it.
void complete_design(std::string identity) {
  begun();
  std::unique_ptr<const Design> complete = std::move(being_told());
  Definitions& state = definitions();
  const std::lock_guard<std::mutex> lock(state.mutex);
  state.designs.try_emplace(std::move(identity), std::move(complete));
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
  const auto found = state.designs.find(identity);
  TORCH_CHECK(found != state.designs.end(), "No design has been defined as '", identity, "'.");
  return *found->second;
}

TORCH_LIBRARY_FRAGMENT(embedding_harness, library) {
  // A design is told by several calls of one thread: begin_design, then add_special in the order in which special
  // kernels are tried and add_kernel for each, then complete_design, from which on it can be applied.
  define_by_fields(library, "begin_design", description_fields(), &begin_design);
  define_by_fields(library, "add_special", special_fields(), &add_special);
  define_by_fields(library, "add_kernel", kernel_fields(), &add_kernel);
  library.def("complete_design(str identity) -> ()", &complete_design);
  library.def("calls", &counted);
}

}  // namespace embedding_harness
