// A libcuda.so.1 without a GPU: one device whose memory is the host's. Any file is a cubin to it, any name a kernel;
// a launch computes at once what lookup_args.h promises, for float32, and is written to a log.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>

#include "lookup_args.h"

namespace {

std::string events;
thread_local void* context = nullptr;
thread_local int capture_mode = 0;
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
      static_cast<index_t*>(args.offset2bag)[i] = static_cast<index_t>(bag);
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
    static_cast<index_t*>(args.bag_size)[bag] = static_cast<index_t>(counted);
  }
}

std::string describe(const PrepareArgs& args) {
  const auto* rows = static_cast<const lookup_int64*>(args.hot_rows);
  std::string text;
  for (lookup_int64 i = 0; i < args.n_hot_rows; i++) text += " " + std::to_string(rows[i]);
  return text + " bytes " + std::to_string(args.row_bytes) + " stride " + std::to_string(args.row_stride_bytes);
}

}  // namespace

extern "C" {

// What happened so far, a line each; starts a new log.
const char* fake_events() {
  static std::string told;
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
int cuCtxResetPersistingL2Cache() { return events += "reset\n", 0; }
int cuThreadExchangeStreamCaptureMode(int* mode) {
  const int before = capture_mode;
  capture_mode = *mode;
  *mode = before;
  return 0;
}
int cuModuleLoadData(void** module, const void* image) {
  if (capture_mode != 2 || context == nullptr || number("FAKE_REFUSES", 0)) return 999;
  events += "load " + std::string(static_cast<const char*>(image)) + "\n";
  return *module = strdup(static_cast<const char*>(image)), 0;
}
int cuModuleGetFunction(void** function, void*, const char* name) {
  if (number("FAKE_LACKS_KERNELS", 0)) return 500;
  return *function = strdup(name), 0;
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
  events += name + shape;
  if (name.rfind("prepare", 0) == 0) {
    events += describe(*static_cast<PrepareArgs*>(arguments[0]));
  } else if (name.find("int32") != std::string::npos) {
    lookup<int>(gathered(arguments));
  } else {
    lookup<lookup_int64>(gathered(arguments));
  }
  events += "\n";
  return 0;
}
}
