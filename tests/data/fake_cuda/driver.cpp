// A libcuda.so.1 without a GPU: its devices' memory is the host's. Any file is a cubin to it, any name a kernel. A
// launch runs at once what the emulator made of that kernel: a symbol of one of the libraries that EMULATED_KERNELS
// names, with colons between them; see harness/emulator/device/entries.h. What happens is written to a log.
#include <dlfcn.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sstream>
#include <string>
#include <utility>

#include "tables_args.h"

namespace {

constexpr int kClockKhz = 1980000, kMemoryKhz = 2619000, kBusBits = 5120;  // an H100's

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
std::atomic<int> launched_on{-1};

int number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

lookup_int64 expected_crowded_clocks = -1;  // what launches have to be told; -1: what follows from the GPU's rates

thread_local std::string wrong;  // with the last launch, in words, until they are asked for

std::mutex holding;
std::condition_variable held_or_let_go;
void* held_stream = nullptr;
bool is_held = false;

bool has(const std::string& name, const char* part) { return name.find(part) != std::string::npos; }

bool takes_tables(const std::string& name) {
  return has(name, "_lookup_tables_") || has(name, "_lookup_large_") || has(name, "_lookup_stream_") ||
         has(name, "_lookup_wide_");
}

// What tables_args.h promises kernels and this launch does not keep; empty where it keeps all.
std::string broken_promise(const std::string& name, const TablesArgs& args) {
  const bool any_call = has(name, "_generic"), fast = has(name, "_fast");
  const bool large = has(name, "_lookup_large_") || has(name, "_lookup_wide_");
  // For tables that differ there is, of ours, a kernel in `fused`; those of the wheel's `vectorized` may.
  const bool alike = large || (fast && name.rfind("vectorized_", 0) != 0);
  if (args.tickets == nullptr || args.tickets->next != 0 || args.tickets->ended != 0) return "tickets are used";
  if (!any_call && args.sample_weights != nullptr) return "sample weights are not for this kernel";
  for (lookup_int64 table = 0; table < args.n_tables; table++) {
    const TableRows& rows = args.tables[table];
    const lookup_int64 begin = rows.weights + reinterpret_cast<lookup_int64>(args.storage);
    if (args.first_number >= 0 && rows.number != args.first_number + table) return "numbers of tables are wrong";
    if (!any_call && rows.mode == LOOKUP_MAX) return "the mode max is not for this kernel";
    if ((fast || large) && (rows.row_stride_bytes % 16 || begin % 16)) return "rows are no whole vectors";
    if (alike && rows.dim != args.dim) return "tables are not alike";
    if (rows.dim > args.dim) return "a table is wider than the widest";
  }
  const lookup_int64 follows = crowded_clocks(number("FAKE_MULTIPROCESSORS", 132), kClockKhz, kMemoryKhz, kBusBits);
  if (args.crowded_clocks != (expected_crowded_clocks < 0 ? follows : expected_crowded_clocks)) {
    return "when memory is crowded is told wrongly, as from " + std::to_string(args.crowded_clocks) + " clocks on";
  }
  return "";
}

// The emulated kernel; null where no library has it.
using Emulated = const char* (*)(const unsigned* grid, const unsigned* block, void** arguments);
Emulated emulated(const char* name) {
  const char* paths = std::getenv("EMULATED_KERNELS");
  std::istringstream all(paths ? paths : "");
  for (std::string path; std::getline(all, path, ':');) {
    void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) std::fprintf(stderr, "%s\n", dlerror());
    void* const found = library ? dlsym(library, name) : nullptr;
    if (found != nullptr) return reinterpret_cast<Emulated>(found);
  }
  return nullptr;
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
  const std::lock_guard<std::mutex> lock(writing);
  told = events;
  events.clear();
  return told.c_str();
}

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { return *version = number("FAKE_DRIVER", 12010), 0; }
int cuGetErrorName(int, const char** name) { return *name = "CUDA_ERROR_FAKE", 0; }
int cuGetErrorString(int, const char** text) {
  thread_local std::string told;
  told = wrong.empty() ? "as the test asked" : std::exchange(wrong, "");
  return *text = told.c_str(), 0;
}
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  const int capability = number("FAKE_CAPABILITY", 90);
  switch (attribute) {
    case 13:
      return *value = kClockKhz, 0;
    case 36:
      return *value = kMemoryKhz, 0;
    case 37:
      return *value = kBusBits, 0;
    case 75:
      return *value = capability / 10, 0;
    case 76:
      return *value = capability % 10, 0;
    default:
      return *value = number("FAKE_MULTIPROCESSORS", 132), 0;
  }
}
int cuDevicePrimaryCtxRetain(void** primary, int device) { return *primary = &persisting_bytes + device, 0; }
int cuCtxGetCurrent(void** current) { return *current = context, 0; }
int cuCtxGetDevice(int* device) {
  if (context == nullptr) return 201;  // CUDA_ERROR_INVALID_CONTEXT
  return *device = static_cast<int>(static_cast<std::size_t*>(context) - &persisting_bytes), 0;
}
int cuCtxSetCurrent(void* chosen) { return context = chosen, 0; }
int cuCtxSetLimit(int, std::size_t bytes) { return persisting_bytes = bytes / 1024 * 1024, 0; }
int cuCtxGetLimit(std::size_t* bytes, int) { return *bytes = persisting_bytes, 0; }
int cuCtxResetPersistingL2Cache() { return note("reset"), 0; }
void fake_capture(int whether) { capturing = whether; }
void fake_expect_crowded_clocks(int clocks) { expected_crowded_clocks = clocks; }

// On which device the last launch was.
int fake_launched_on() { return launched_on; }

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
int cuThreadExchangeStreamCaptureMode(int* mode) { return std::swap(capture_mode, *mode), 0; }
int cuModuleLoadData(void** module, const void* image) {
  if (capture_mode != 2 || context == nullptr || number("FAKE_REFUSES", 0)) return 999;
  note("load " + std::string(static_cast<const char*>(image)));
  return *module = strdup(static_cast<const char*>(image)), 0;
}
int cuFuncLoad(void*) { return 0; }
int cuModuleGetFunction(void** function, void*, const char* name) {
  if (number("FAKE_LACKS_KERNELS", 0)) return 500;
  return *function = strdup(name), 0;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int threads, std::size_t) {
  return *blocks = 896 / threads, 0;
}
int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** arguments, void** extra) {
  if (context == nullptr || capture_mode != 0 || extra != nullptr || grid_x == 0 || shared != 0) return 999;
  if (grid_y == 0 || grid_y > 65535 || grid_z != 1 || block_z != 1 || block_x * block_y > 1024) return 1;
  {
    std::unique_lock<std::mutex> lock(holding);
    is_held = is_held || stream == held_stream;
    held_or_let_go.notify_all();
    held_or_let_go.wait(lock, [stream] { return stream != held_stream; });
  }
  int device = -1;
  cuCtxGetDevice(&device);
  launched_on = device;
  // One launch at a time, whichever library it is of: while one runs, signals of the process are its.
  static std::mutex launching;
  const std::lock_guard<std::mutex> lock(launching);
  const std::string name = static_cast<const char*>(function);
  char shape[200];
  std::snprintf(shape, sizeof shape, " grid %u,%u,%u block %u,%u,%u stream %p", grid_x, grid_y, grid_z, block_x,
                block_y, block_z, stream);
  std::string line = name + shape;
  if (has(name, "_prepare_")) line += describe(*static_cast<PrepareArgs*>(arguments[0]));
  if (takes_tables(name)) {
    const auto& args = *static_cast<TablesArgs*>(arguments[0]);
    line += " tables " + std::to_string(args.n_tables) + " first " + std::to_string(args.first_number) + " dim " +
            std::to_string(args.dim);
    wrong = broken_promise(name, args);
    if (!wrong.empty()) return 719;
  }
  const Emulated kernel = emulated(name.c_str());
  if (kernel == nullptr) return wrong = name + " is not emulated", 500;
  const unsigned grid[] = {grid_x, grid_y}, block[] = {block_x, block_y};
  const char* const refused = kernel(grid, block, arguments);
  wrong = refused ? refused : "";
  if (refused != nullptr) return 710;
  note(line);
  return 0;
}
}
