// Errors in one sentence, as Python shows them.
#pragma once

#include "launching/error.h"

namespace embedding_kernels {

using launching::fail;
using launching::require;

}  // namespace embedding_kernels
