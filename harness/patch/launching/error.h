// Errors in one sentence, as Python shows them.
#pragma once

#include <sstream>
#include <stdexcept>

namespace launching {

template <typename... Words>
[[noreturn]] void fail(const Words&... words) {
  std::ostringstream sentence;
  ((sentence << words), ...);
  throw std::runtime_error(sentence.str());
}

template <typename... Words>
void require(bool condition, const Words&... words) {
  if (!condition) [[unlikely]]
    fail(words...);
}

}  // namespace launching
