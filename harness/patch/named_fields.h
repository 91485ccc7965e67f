// Structs that Python fills in by an operator with a named argument for each field.
//
// A struct's fields are listed once, beside it, as {name, member}. The operator's schema is made of that list, so a
// further field is one line in the struct and one in its list.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <torch/library.h>

namespace embedding_harness {

// A type as operators know it: its word in a schema, and how a value is read. Types that PyTorch has no word for are
// specialised where they are declared.
template <typename T>
struct Wire {
  static constexpr const char* schema = std::is_same_v<T, bool>                       ? "bool"
                                        : std::is_same_v<T, int64_t>                  ? "int"
                                        : std::is_same_v<T, std::string>              ? "str"
                                        : std::is_same_v<T, std::optional<bool>>      ? "bool?"
                                        : std::is_same_v<T, std::array<int64_t, 2>>   ? "int[]"
                                        : std::is_same_v<T, std::vector<std::string>> ? "str[]"
                                                                                      : nullptr;
  static T read(const c10::IValue& value) {
    static_assert(schema != nullptr, "operators have no such type: specialise Wire");
    return value.to<T>();
  }
};

template <typename Struct>
struct Field {
  std::string schema;
  std::function<void(Struct&, const c10::IValue&)> set;

  // `member`: of a struct, the field as a reference.
  template <typename Member>
  Field(const char* name, Member member) {
    using T = std::remove_reference_t<decltype(member(std::declval<Struct&>()))>;
    schema = std::string(Wire<T>::schema) + " " + name;
    set = [member](Struct& filled, const c10::IValue& value) { member(filled) = Wire<T>::read(value); };
  }
};

template <typename Struct>
using Fields = std::vector<Field<Struct>>;

// Defines the operator `name(*, <every field>) -> ()`, which hands `take` a struct with all of them.
template <typename Struct>
void define_by_fields(torch::Library& library, const std::string& name, Fields<Struct> fields, void (*take)(Struct)) {
  struct Kernel : c10::OperatorKernel {
    Kernel(Fields<Struct> all, void (*then)(Struct)) : fields(std::move(all)), take(then) {}
    void operator()(const c10::OperatorHandle&, c10::DispatchKeySet, torch::jit::Stack* stack) {
      Struct filled{};
      for (std::size_t i = 0; i < fields.size(); i++) {
        fields[i].set(filled, torch::jit::peek(*stack, i, fields.size()));
      }
      torch::jit::drop(*stack, fields.size());
      take(std::move(filled));
    }
    Fields<Struct> fields;
    void (*take)(Struct);
  };
  std::string schema = name + "(*";
  for (const auto& field : fields) schema += ", " + field.schema;
  library.def((schema + ") -> ()").c_str(),
              torch::CppFunction::makeFromBoxedFunctor(std::make_unique<Kernel>(std::move(fields), take)));
}

}  // namespace embedding_harness
