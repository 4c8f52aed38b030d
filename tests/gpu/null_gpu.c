// GPUs that compute nothing: CUDA's runtime, cuBLAS, NCCL and a part of its driver, preloaded before the real ones.
//
// Device memory is host memory, which reads as zeros until something is copied into it; a kernel changes nothing. So
// torch's own code decides what is copied where, which operation has no deterministic form, and which GPU a process
// uses. `null_gpu.py` builds this file, adds `long NAME(void) { return 0; }` for all other functions that torch links,
// and includes this file's structures of CUDA. The soname is that of the driver, so that whoever loads it gets this.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>
#define __CUDA_RUNTIME_API_H__
#define __dv(value)
#include "driver_types.h"

typedef int Status;  // 0 is success, in all libraries
#define MOST 64
#define PAGE 4096UL
#define ARENA (1UL << 42)

// ---- Which GPUs there are: NULL_GPUS of them, as far as CUDA_VISIBLE_DEVICES lets them be seen. ----

static int visible[MOST], count = -1;
static __thread int current = 0;
static int driver_version(void) { return getenv("NULL_GPUS_DRIVER") ? atoi(getenv("NULL_GPUS_DRIVER")) : 13000; }

static void uuid_of(int gpu, unsigned char *bytes) {
  memset(bytes, 0, 16);
  bytes[15] = gpu;
}

static int number_of(const char *word, int all) {  // of an index, or of a UUID as in GPU-00000000-...-000000000003
  char *end;
  long number = strncasecmp(word, "GPU-", 4) ? strtol(word, &end, 10) : strtol(word + 28, &end, 16);
  return end == word || *end || number >= all ? -1 : (int)number;
}

static void look(void) {  // once in a process, as CUDA does it
  if (count >= 0) return;
  int all = getenv("NULL_GPUS") ? atoi(getenv("NULL_GPUS")) : 1;
  const char *mask = getenv("CUDA_VISIBLE_DEVICES");
  count = 0;
  if (!mask) {
    for (; count < all; count++) visible[count] = count;
    return;
  }
  char *rest = strdup(mask), *word;
  while ((word = strsep(&rest, ",")) && *word && (visible[count] = number_of(word, all)) >= 0) count++;
}

static void note_use(void) {  // in the file NULL_GPUS_LOG: which process uses which GPU
  static int noted[MOST];
  const char *path = getenv("NULL_GPUS_LOG");
  look();
  if (!path || noted[current]++) return;
  int file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
  dprintf(file, "%d %d\n", visible[current], getpid());
  close(file);
}

Status cuInit(unsigned flags) { return 0; }
Status cuDriverGetVersion(int *version) { return *version = driver_version(), 0; }
Status cuDeviceGetCount(int *n) { return look(), *n = count, 0; }
Status cuDeviceGet(int *device, int index) { return *device = index, 0; }
Status cuDeviceGetUuid_v2(unsigned char *bytes, int device) { return look(), uuid_of(visible[device], bytes), 0; }
Status cuDeviceGetName(char *name, int size, int device) { return snprintf(name, size, "Null GPU"), 0; }
Status cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  if (flags) *flags = 0;
  return *active = 1, 0;
}
Status cuCtxGetCurrent(void **context) { return *context = (void *)16, 0; }

Status cudaGetDeviceCount(int *n) {
  look();
  *n = count;
  if (driver_version() / 1000 < 13) return 35;  // cudaErrorInsufficientDriver
  return count ? 0 : 100;                       // cudaErrorNoDevice
}
Status cudaGetDevice(int *device) { return *device = current, 0; }
Status cudaSetDevice(int device) { return look(), device < count ? (current = device, 0) : 101; }
Status cudaRuntimeGetVersion(int *version) { return *version = 13000, 0; }
Status cudaDriverGetVersion(int *version) { return cuDriverGetVersion(version); }
const char *cudaGetErrorString(int error) { return error == 35 ? "CUDA driver version is insufficient" : "null GPU"; }
const char *cudaGetErrorName(int error) { return "nullError"; }

static int attribute(int which) {
  switch (which) {
    case cudaDevAttrMultiProcessorCount: return 132;
    case cudaDevAttrMaxThreadsPerBlock: return 1024;
    case cudaDevAttrMaxSharedMemoryPerBlock: return 49152;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return 232448;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMaxGridDimX: return 2147483647;
    case cudaDevAttrComputeCapabilityMajor: return 9;
    case cudaDevAttrComputeCapabilityMinor: return 0;
    default: return 1;
  }
}
Status cudaDeviceGetAttribute(int *value, int which, int device) { return *value = attribute(which), 0; }
Status cuDeviceGetAttribute(int *value, int which, int device) { return *value = attribute(which), 0; }
Status cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
  look();
  memset(p, 0, sizeof *p);
  strcpy(p->name, "Null GPU");
  uuid_of(visible[device], (unsigned char *)&p->uuid);
  p->totalGlobalMem = 80UL << 30, p->major = 9, p->minor = 0, p->multiProcessorCount = 132;
  p->warpSize = 32, p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->sharedMemPerBlock = 49152, p->sharedMemPerBlockOptin = 232448, p->sharedMemPerMultiprocessor = 233472;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536, p->l2CacheSize = 50 << 20, p->textureAlignment = 512;
  return 0;
}

// ---- Memory: two ranges of addresses, of devices and of pinned memory. Freed pages read as zeros, and are not reused. ----

typedef struct {
  char *start, *next;
} Arena;
static Arena on_device, pinned;

__attribute__((constructor)) static void reserve(void) {
  for (int i = 0; i < 2; i++) {
    Arena *arena = i ? &pinned : &on_device;
    arena->start = mmap(0, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    arena->next = arena->start + PAGE;
  }
}

static void *take(Arena *arena, size_t bytes) {  // the page before a block holds its size
  size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
  char *block = __atomic_fetch_add(&arena->next, whole + PAGE, __ATOMIC_SEQ_CST);
  *(size_t *)(block - PAGE) = whole;
  return block;
}
static void release(char *block) {
  if (block) madvise(block - PAGE, *(size_t *)(block - PAGE) + PAGE, MADV_DONTNEED);
}
static int lies_in(const Arena *arena, const void *p) {
  return (char *)p >= arena->start && (char *)p < arena->start + ARENA;
}

Status cudaMalloc(void **p, size_t n) { return note_use(), *p = take(&on_device, n), 0; }
Status cudaHostAlloc(void **p, size_t n, unsigned flags) { return *p = take(&pinned, n), 0; }
Status cudaMallocHost(void **p, size_t n) { return cudaHostAlloc(p, n, 0); }
Status cudaFree(void *p) { return release(p), 0; }
Status cudaFreeHost(void *p) { return release(p), 0; }
Status cudaMemGetInfo(size_t *free, size_t *total) { return *free = 78UL << 30, *total = 80UL << 30, 0; }
Status cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) { return memcpy(to, from, n), 0; }
Status cudaMemcpy(void *to, const void *from, size_t n, int kind) { return memcpy(to, from, n), 0; }
Status cudaMemcpyPeerAsync(void *to, int a, const void *from, int b, size_t n, void *stream) {
  return memcpy(to, from, n), 0;
}
Status cudaMemsetAsync(void *p, int value, size_t n, void *stream) { return memset(p, value, n), 0; }
Status cudaMemset(void *p, int value, size_t n) { return memset(p, value, n), 0; }
Status cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
  memset(a, 0, sizeof *a);
  a->type = lies_in(&on_device, p) ? cudaMemoryTypeDevice : lies_in(&pinned, p) ? cudaMemoryTypeHost : 0;
  a->devicePointer = a->hostPointer = (void *)p;
  return 0;
}

// ---- Streams, events, kernels: handles of which nothing depends, and launches that do nothing. ----

static Status handle(void **p) {
  static long next = 0x1000;
  return *p = (void *)__atomic_add_fetch(&next, 16, __ATOMIC_SEQ_CST), 0;
}
Status cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority) { return handle(stream); }
Status cudaStreamCreateWithFlags(void **stream, unsigned flags) { return handle(stream); }
Status cudaEventCreateWithFlags(void **event, unsigned flags) { return handle(event); }
Status cudaEventCreate(void **event) { return handle(event); }
Status cudaEventElapsedTime(float *milliseconds, void *a, void *b) { return *milliseconds = 1, 0; }
Status cudaStreamIsCapturing(void *stream, int *status) { return *status = 0, 0; }
Status cudaStreamGetCaptureInfo(void *stream, int *status, unsigned long long *id) { return *status = 0, 0; }
Status cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return 0;
}
Status cudaDeviceCanAccessPeer(int *can, int device, int peer) { return *can = 1, 0; }
Status cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *kernel) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024, a->ptxVersion = a->binaryVersion = 90, a->numRegs = 32;
  return 0;
}
Status cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, const void *kernel, int block, size_t shared) {
  return *n = 2, 0;
}
Status cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *k, int b, size_t s, unsigned f) {
  return *n = 2, 0;
}
void **__cudaRegisterFatBinary(void *binary) {
  static void *registered;
  return &registered;
}
Status __cudaGetKernel(void **kernel, const void *function) { return *kernel = (void *)function, 0; }
typedef struct {
  unsigned x, y, z;
} Extent;
static __thread struct {
  Extent grid, block;
  size_t shared;
  void *stream;
} pushed;  // what the compiler's <<<grid, block>>> puts aside until the launch
unsigned __cudaPushCallConfiguration(Extent grid, Extent block, size_t shared, void *stream) {
  pushed.grid = grid, pushed.block = block, pushed.shared = shared, pushed.stream = stream;
  return 0;
}
Status __cudaPopCallConfiguration(Extent *grid, Extent *block, size_t *shared, void *stream) {
  *grid = pushed.grid, *block = pushed.block, *shared = pushed.shared, *(void **)stream = pushed.stream;
  return 0;
}
static long nothing(void) { return 0; }
Status cudaGetDriverEntryPointByVersion(const char *name, void **f, unsigned version, unsigned long long flags, int *found) {
  *f = strstr(name, "PrimaryCtxGetState") ? (void *)cuDevicePrimaryCtxGetState : (void *)nothing;
  if (found) *found = 0;
  return 0;
}
Status cudaGetDriverEntryPoint(const char *name, void **f, unsigned long long flags, int *found) {
  return cudaGetDriverEntryPointByVersion(name, f, 0, flags, found);
}

// ---- cuBLAS and NCCL: as much as torch looks at. ----

Status cublasCreate_v2(void **h) { return handle(h); }
Status cublasLtCreate(void **h) { return handle(h); }
Status cublasGetPointerMode_v2(void *h, int *mode) { return *mode = 0, 0; }
Status cublasGetMathMode(void *h, int *mode) { return *mode = 0, 0; }
Status cublasLtMatmulAlgoGetHeuristic(void *a, void *b, void *c, void *d, void *e, void *f, void *g, int n, void *found, int *how_many) {
  return memset(found, 0, 96), *how_many = 1, 0;
}
Status ncclGetVersion(int *version) { return *version = 22800, 0; }
Status ncclCommInitRank(void **communicator, int size, long id, long rank) { return handle(communicator); }
Status ncclCommGetAsyncError(void *communicator, int *error) { return *error = 0, 0; }
const char *ncclGetErrorString(int error) { return "null"; }
const char *ncclGetLastError(void *communicator) { return ""; }
