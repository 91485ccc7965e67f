// A libcuda.so.1 for the package that is served, without a GPU: memory is the host's. Any file is a fat binary to it,
// and a kernel's name says its types: FUNCTION/ROWS/OUTPUT/INDEX/GENERIC/DESIGN, as numbers of csrc/kernels.h. A launch
// computes at once, by csrc/cpu.cpp, what tables_args.h promises, and is written to a log.
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>

#include "lookup.h"

namespace {

using embedding_kernels::Call;
using embedding_kernels::Group;
using embedding_kernels::Type;

std::string events;  // NOLINT(runtime/string): nothing outlives it
std::mutex writing;
thread_local void* context = nullptr;
thread_local int capture_mode = 0;
int capturing = 0;

std::mutex holding;
std::condition_variable held_or_let_go;
void* held_stream = nullptr;
bool is_held = false;

void note(const std::string& line) {
  const std::lock_guard<std::mutex> lock(writing);
  events += line + "\n";
}

int number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
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
void fake_capture(int whether) { capturing = whether; }

// From now on launches on this stream do not return, as where its queue is full; null: those that were held do.
void fake_hold(void* stream) {
  const std::lock_guard<std::mutex> lock(holding);
  held_stream = stream;
  held_or_let_go.notify_all();
}
// Returns once a launch is held.
void fake_await_held() {
  std::unique_lock<std::mutex> lock(holding);
  held_or_let_go.wait(lock, [] { return is_held; });
}

int aoti_torch_get_current_cuda_stream(int device, void** stream) {
  return *stream = reinterpret_cast<void*>(0x1000 * (device + 1)), 0;
}

// PyTorch's own asks for a CUDA backend with all that it has.
int aoti_torch_create_device_guard(int device, void** guard) { return *guard = &capturing + device, 0; }
int aoti_torch_delete_device_guard(void*) { return 0; }

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { return *version = number("FAKE_DRIVER", 13000), 0; }
int cuGetErrorName(int, const char** name) { return *name = "CUDA_ERROR_FAKE", 0; }
int cuGetErrorString(int, const char** text) { return *text = "as the test asked", 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  const int capability = number("FAKE_CAPABILITY", 90);
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 132;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** primary, int device) { return *primary = &capturing + device, 0; }
int cuCtxGetCurrent(void** current) { return *current = context, 0; }
int cuCtxSetCurrent(void* chosen) { return context = chosen, 0; }
int cuStreamIsCapturing(void*, int* status) { return *status = capturing, 0; }
int cuStreamCreate(void** stream, unsigned flags) { return *stream = &capturing, flags == 1 ? 0 : 1; }
int cuStreamSynchronize(void* stream) { return stream == &capturing && capture_mode == 2 ? 0 : 900; }
int cuMemAlloc_v2(void** memory, std::size_t bytes) {
  if (capture_mode != 2) return 900;
  note("allocate " + std::to_string(bytes));
  return *memory = std::malloc(bytes), 0;
}
int cuMemcpyHtoDAsync_v2(void* to, const void* from, std::size_t bytes, void* stream) {
  return stream == &capturing ? (std::memcpy(to, from, bytes), 0) : 900;
}
int cuThreadExchangeStreamCaptureMode(int* mode) { return std::swap(capture_mode, *mode), 0; }
int cuModuleLoadData(void** module, const void* image) {
  if (capture_mode != 2 || context == nullptr || number("FAKE_REFUSES", 0)) return 999;
  note("load " + std::string(static_cast<const char*>(image)));
  return *module = strdup(static_cast<const char*>(image)), 0;
}
int cuFuncLoad(void*) { return 0; }
int cuModuleGetFunction(void** function, void*, const char* name) { return *function = strdup(name), 0; }

int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** arguments, void** extra) {
  if (context == nullptr || capture_mode != 0 || extra != nullptr || grid_x == 0 || shared != 0) return 999;
  {
    std::unique_lock<std::mutex> lock(holding);
    is_held = is_held || stream == held_stream;
    held_or_let_go.notify_all();
    held_or_let_go.wait(lock, [stream] { return stream != held_stream; });
  }
  const auto& args = *static_cast<const TablesArgs*>(arguments[0]);
  char name[100], design[100];
  int row_type = 0, output_type = 0, index_type = 0, generic = 0;
  if (std::sscanf(static_cast<const char*>(function), "%99[a-z_]/%d/%d/%d/%d/%99s", name, &row_type, &output_type,
                  &index_type, &generic, design) != 6) {
    return 500;
  }
  if (args.tickets == nullptr || args.tickets->next != 0 || args.tickets->ended != 0) return 710;
  // Special kernels, and those that are not generic, are promised plain calls.
  int widest = 0;
  for (lookup_int64 table = 0; table < args.n_tables; table++) {
    const TableRows& rows = args.tables[table];
    widest = rows.dim > widest ? rows.dim : widest;
    if (args.first_number >= 0 && rows.number != args.first_number + table) return 711;
    if (generic == 0 && (args.sample_weights != nullptr || rows.mode == LOOKUP_MAX)) return 712;
    if (generic == 0 && std::strcmp(name, "lookup_tables") == 0 && rows.row_stride_bytes % 16 != 0) return 715;
    const bool may_differ = std::strcmp(name, "lookup_stream") == 0 || std::strcmp(design, "vectorized") == 0;
    if (generic == 0 && !may_differ && rows.dim != args.tables[0].dim) return 713;
  }
  if (widest > args.dim) return 714;
  Call call{};
  call.args = args;
  call.output_type = static_cast<Type>(output_type), call.index_type = static_cast<Type>(index_type);
  call.groups = {Group{row_type, 0, args.n_tables, args.first_number, args.dim, 0, 0, 0}};
  embedding_kernels::look_up_on_cpu(call);
  char line[300];
  std::snprintf(line, sizeof line, "%s grid %u,%u,%u block %u,%u,%u stream %p tables %lld first %d dim %lld", name,
                grid_x, grid_y, grid_z, block_x, block_y, block_z, stream, static_cast<long long>(args.n_tables),
                args.first_number, static_cast<long long>(args.dim));
  note(line);
  return 0;
}
}
