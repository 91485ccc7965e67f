// A libcuda.so.1 without a GPU: one device whose memory is the host's. Any file is a cubin to it, any name a kernel;
// a launch computes at once what lookup_args.h promises, for float32, or tables_args.h, for all types, and is written
// to a log.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <type_traits>

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "lookup_args.h"
#include "tables_args.h"

namespace {

std::string events;  // NOLINT(runtime/string): nothing outlives it
std::mutex writing;  // a driver may be called from any thread

void note(const std::string& line) {
  const std::lock_guard<std::mutex> lock(writing);
  events += line + "\n";
}
thread_local void* context = nullptr;
thread_local int capture_mode = 0;
int capturing = 0;
std::size_t persisting_bytes = 0;

int number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

template <typename index_t>
void lookup(const LookupArgs& args) {
  const auto* indices = static_cast<const index_t*>(args.indices);
  const auto* offsets = static_cast<const index_t*>(args.offsets);
  const auto* weights = static_cast<const float*>(args.weights);
  const auto* scales = static_cast<const float*>(args.sample_weights);
  for (lookup_int64 bag = 0; bag < args.n_bags; bag++) {
    const lookup_int64 begin = bag == 0 ? 0 : offsets[bag];
    const lookup_int64 end = bag + 1 < args.n_bags ? offsets[bag + 1] : args.n_indices;
    lookup_int64 counted = 0;
    for (lookup_int64 i = begin; i < end; i++) {
      counted += indices[i] != args.padding_idx;
      if (args.offset2bag) static_cast<index_t*>(args.offset2bag)[i] = static_cast<index_t>(bag);
    }
    for (lookup_int64 column = 0; column < args.dim; column++) {
      double sum = 0;
      for (lookup_int64 i = begin; i < end; i++) {
        if (indices[i] == args.padding_idx) continue;
        sum += static_cast<double>(scales ? scales[i * args.sample_weight_stride] : 1.0f) *
               weights[indices[i] * args.row_stride + column * args.column_stride];
      }
      if (args.mode == LOOKUP_MEAN && counted > 0) sum /= static_cast<double>(counted);
      static_cast<float*>(args.output)[bag * args.dim + column] = static_cast<float>(sum);
    }
    if (args.bag_size) static_cast<index_t*>(args.bag_size)[bag] = static_cast<index_t>(counted);
  }
}

// What a kernel's name begins with where it takes all tables: that for any call, and special ones of the tests.
std::size_t tables_prefix(const std::string& name) {
  for (const std::string prefix : {"lookup_tables_", "lookup_large_", "lookup_stream_"}) {
    if (name.rfind(prefix, 0) == 0) return prefix.size();
  }
  return 0;
}

// Column `column` of a row, whose type a kernel's name begins with after that.
double value(const std::string& type, const TableRows& table, lookup_int64 row, lookup_int64 column) {
  const char* at = reinterpret_cast<const char*>(table.weights) + row * table.row_stride_bytes;
  if (type.rfind("float32", 0) == 0) return reinterpret_cast<const float*>(at)[column];
  if (type.rfind("float16", 0) == 0) return static_cast<float>(reinterpret_cast<const c10::Half*>(at)[column]);
  if (type.rfind("bfloat16", 0) == 0) return static_cast<float>(reinterpret_cast<const c10::BFloat16*>(at)[column]);
  const auto* bytes = reinterpret_cast<const unsigned char*>(at);
  const int q = type.rfind("int8", 0) == 0 ? bytes[column] : (bytes[column / 2] >> (column % 2 * 4)) & 15;
  const auto* scale_bias = reinterpret_cast<const c10::Half*>(table.scales) + 2 * row;
  return static_cast<double>(static_cast<float>(scale_bias[0])) * q + static_cast<float>(scale_bias[1]);
}

// `types`: of a row and of the output, joined by "_".
template <typename index_t>
bool lookup_tables(const std::string& types, bool general, bool alike, const TablesArgs& args) {
  if (!general && args.sample_weights) return false;
  if (args.tickets == nullptr || args.tickets->next != 0 || args.tickets->ended != 0) return false;
  const auto* indices = static_cast<const index_t*>(args.indices);
  for (lookup_int64 table = 0; table < args.n_tables; table++) {
    const TableRows& rows = args.tables[table];
    if (rows.number != args.first_number + table) return false;
    if (!general && rows.mode == LOOKUP_MAX) return false;
    if (alike && (rows.row_stride_bytes % 16 || rows.weights % 16 || rows.dim != args.dim)) return false;
    for (lookup_int64 bag = 0; bag < args.n_bags; bag++) {
      const auto* offsets = static_cast<const index_t*>(args.offsets) + rows.number * args.n_bags + bag;
      for (lookup_int64 column = 0; column < rows.dim; column++) {
        double result = 0;
        for (lookup_int64 i = offsets[0]; i < offsets[1]; i++) {
          if (indices[i] < 0 || indices[i] >= rows.rows) return false;
          const double term =
              value(types, rows, indices[i], column) * (args.sample_weights ? args.sample_weights[i] : 1);
          const bool replaces = i == offsets[0] || term > result;
          result = rows.mode != LOOKUP_MAX ? result + term : replaces ? term : result;
        }
        if (rows.mode == LOOKUP_MEAN && offsets[1] > offsets[0]) result /= static_cast<double>(offsets[1] - offsets[0]);
        const lookup_int64 at = bag * args.output_stride + rows.column + column;
        const auto rounded = static_cast<float>(result);
        if (types.find("_float32") != std::string::npos) {
          static_cast<float*>(args.output)[at] = rounded;
        } else if (types.find("_float16") != std::string::npos) {
          static_cast<c10::Half*>(args.output)[at] = rounded;
        } else {
          static_cast<c10::BFloat16*>(args.output)[at] = rounded;
        }
      }
    }
  }
  return true;
}

std::string describe(const PrepareArgs& args) {
  const auto* rows = static_cast<const lookup_int64*>(args.hot_rows);
  std::string text;
  for (lookup_int64 i = 0; i < args.n_hot_rows; i++) text += " " + std::to_string(rows[i]);
  return text + " bytes " + std::to_string(args.row_bytes) + " stride " + std::to_string(args.row_stride_bytes);
}

// What a kernel of PyTorch's own is told: the fields in another order, and the padding index as wide as an index.
template <typename index_t>
LookupArgs of_pytorch(void** addresses) {
  LookupArgs args{};
  const auto next = [&](auto& field) { field = *static_cast<std::remove_reference_t<decltype(field)>*>(*addresses++); };
  next(args.indices), next(args.offsets), next(args.weights), next(args.output), next(args.offset2bag);
  next(args.n_indices), next(args.n_bags), next(args.dim), next(args.row_stride), next(args.column_stride);
  next(args.mode), next(args.bag_size), next(args.sample_weights), next(args.sample_weight_stride);
  index_t padding_idx;
  next(padding_idx), next(args.rows);
  args.padding_idx = padding_idx;
  return args;
}

}  // namespace

extern "C" {

// What happened so far, a line each; starts a new log.
const char* fake_events() {
  static std::string told;
  const std::lock_guard<std::mutex> lock(writing);
  told = events;
  events.clear();
  return told.c_str();
}

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { return *version = 12010, 0; }
int cuGetErrorName(int, const char** name) { return *name = "CUDA_ERROR_FAKE", 0; }
int cuGetErrorString(int, const char** text) { return *text = "as the test asked", 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  const int capability = number("FAKE_CAPABILITY", 90);
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 132;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** primary, int device) { return *primary = &persisting_bytes + device, 0; }
int cuCtxGetCurrent(void** current) { return *current = context, 0; }
int cuCtxSetCurrent(void* chosen) { return context = chosen, 0; }
int cuCtxSetLimit(int, std::size_t bytes) { return persisting_bytes = bytes / 1024 * 1024, 0; }
int cuCtxGetLimit(std::size_t* bytes, int) { return *bytes = persisting_bytes, 0; }
int cuCtxResetPersistingL2Cache() { return note("reset"), 0; }
void fake_capture(int whether) { capturing = whether; }
int cuCtxSynchronize() { return capturing ? 900 : (note("synchronize"), 0); }
int cuStreamIsCapturing(void*, int* status) { return *status = capturing, 0; }
int cuStreamCreate(void** stream, unsigned flags) { return *stream = &capturing, flags == 1 ? 0 : 1; }
int cuStreamSynchronize(void* stream) { return stream == &capturing && capture_mode == 2 ? 0 : 900; }
int cuMemAlloc_v2(void** memory, std::size_t bytes) {
  if (capture_mode != 2) return 900;
  note("allocate " + std::to_string(bytes));
  return *memory = std::malloc(bytes), 0;
}
int cuMemFree_v2(void* memory) { return std::free(memory), note("free"), 0; }
int cuMemcpyHtoDAsync_v2(void* to, const void* from, std::size_t bytes, void* stream) {
  if (stream != &capturing || number("FAKE_REFUSES_COPIES", 0)) return 900;
  return std::memcpy(to, from, bytes), 0;
}
int cuThreadExchangeStreamCaptureMode(int* mode) {
  const int before = capture_mode;
  capture_mode = *mode;
  *mode = before;
  return 0;
}
int cuModuleLoadData(void** module, const void* image) {
  if (capture_mode != 2 || context == nullptr || number("FAKE_REFUSES", 0)) return 999;
  note("load " + std::string(static_cast<const char*>(image)));
  return *module = strdup(static_cast<const char*>(image)), 0;
}
int cuModuleGetFunction(void** function, void*, const char* name) {
  if (number("FAKE_LACKS_KERNELS", 0)) return 500;
  return *function = strdup(name), 0;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int threads, std::size_t) {
  return *blocks = 896 / threads, 0;
}
// The kernel's parameters as one struct again.
static LookupArgs gathered(void** addresses) {
#define LOOKUP_VALUE(type, name) *static_cast<std::remove_reference_t<decltype(LookupArgs::name)>*>(*addresses++),
  return {LOOKUP_FIELDS(LOOKUP_VALUE)};
#undef LOOKUP_VALUE
}
int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned, void* stream, void** arguments, void** extra) {
  if (context == nullptr || capture_mode != 0 || extra != nullptr || grid_x == 0) return 999;
  const std::string name = static_cast<const char*>(function);
  char shape[200];
  std::snprintf(shape, sizeof shape, " grid %u,%u,%u block %u,%u,%u stream %p", grid_x, grid_y, grid_z, block_x,
                block_y, block_z, stream);
  std::string line = name + shape;
  if (name.rfind("prepare", 0) == 0) {
    line += describe(*static_cast<PrepareArgs*>(arguments[0]));
  } else if (const std::size_t prefix = tables_prefix(name)) {
    const auto& args = *static_cast<TablesArgs*>(arguments[0]);
    const std::string types = name.substr(prefix);
    const bool general = name.find("general") != std::string::npos;
    const bool wide = name.find("_int64") != std::string::npos;
    const bool alike = !general && name.rfind("lookup_stream_", 0) != 0;
    if (!(wide ? lookup_tables<lookup_int64>(types, general, alike, args)
               : lookup_tables<int>(types, general, alike, args)))
      return 710;
  } else if (name.find("sum_meanIfl") != std::string::npos) {
    lookup<lookup_int64>(of_pytorch<lookup_int64>(arguments));
  } else if (name.find("sum_meanIfi") != std::string::npos) {
    lookup<int>(of_pytorch<int>(arguments));
  } else if (name.find("int32") != std::string::npos) {
    lookup<int>(gathered(arguments));
  } else {
    lookup<lookup_int64>(gathered(arguments));
  }
  note(line);
  return 0;
}
}
