// Counts and times a program's calls of the CUDA driver and of cuBLAS, by name, a kernel's launches by the kernel's:
//
//   cc -O2 -shared -fPIC -o /tmp/cuda_calls.so scripts/cuda_calls.c -ldl -lpthread
//   CALLS=/tmp/calls.txt LD_PRELOAD=/tmp/cuda_calls.so target/release/examples/step_time --device cuda --model resnet20 --units 1
//
// Each line is a name, how often, seconds, microseconds a call, and MiB. Of kernels and products these are the arrays that
// they have to read and to write, each once, as their names and sizes tell: what a device's memory has to give at least.
// Behind the lines are the sums of launches, multiplications of products, and MiB. With CALLS_WAIT=1 it waits behind each
// call, and a kernel's seconds are its own and the wait's. On a device in software counts and MiB are right and the
// seconds mean nothing.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int Result;
typedef void *Pointer;
enum { MOST = 4096, NAME = 96 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { char name[NAME]; long count; double seconds, bytes; } rows[MOST];
static struct { Pointer kernel; char name[NAME]; } kernels[MOST];
static int row_count, kernel_count;
static Pointer stream_of_products;
static double multiplications;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void note(const char *name, double seconds, double bytes) {
  pthread_mutex_lock(&lock);
  int i = 0;
  while (i < row_count && strcmp(rows[i].name, name)) i++;
  if (i < MOST) {
    if (i == row_count) snprintf(rows[row_count++].name, NAME, "%s", name);
    rows[i].count++;
    rows[i].seconds += seconds;
    rows[i].bytes += bytes;
  }
  pthread_mutex_unlock(&lock);
}

static Pointer real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int waits(void) {
  const char *set = getenv("CALLS_WAIT");
  return set && *set == '1';
}

static void wait_for(Pointer stream) {
  static Result (*wait)(Pointer);
  if (!wait) wait = real("cuStreamSynchronize");
  wait(stream);
}

static int slower_first(const void *a, const void *b) {
  double x = ((__typeof__(&rows[0]))a)->seconds, y = ((__typeof__(&rows[0]))b)->seconds;
  return x < y ? 1 : x > y ? -1 : 0;
}

__attribute__((destructor)) static void report(void) {
  const char *path = getenv("CALLS");
  FILE *file = path && row_count ? fopen(path, "w") : NULL;
  if (!file) return;
  qsort(rows, (size_t)row_count, sizeof rows[0], slower_first);
  long calls = 0;
  for (int i = 0; i < row_count; i++) calls += strncmp(rows[i].name, "kernel ", 7) ? rows[i].count : 0;
  fprintf(file, "%-64s %9ld\n", "all calls", calls);
  for (int i = 0; i < row_count; i++)
    fprintf(file, "%-64s %9ld %10.4f s %9.2f us %12.3f MiB\n", rows[i].name, rows[i].count, rows[i].seconds,
            1e6 * rows[i].seconds / (double)rows[i].count, rows[i].bytes / 1048576);
  long launches = 0;
  double moved = 0;
  for (int i = 0; i < row_count; i++) {
    int kernel = !strncmp(rows[i].name, "kernel ", 7), product = !strncmp(rows[i].name, "cublas", 6);
    int other = !strncmp(rows[i].name, "copy on", 7) || !strncmp(rows[i].name, "cuMemset", 8);
    if (kernel || product) launches += rows[i].count;
    if (kernel || product || other) moved += rows[i].bytes;
  }
  fprintf(file, "sum: %ld launches, %.4f G multiplications, %.3f MiB\n", launches, multiplications / 1e9, moved / 1048576);
  fclose(file);
}

// Bytes of a number of the type that a name ends with.
static double width_of(const char *name) {
  const char *type = strrchr(name, '_');
  if (!type) return 4;
  if (!strcmp(type, "_f64") || !strcmp(type, "_i64")) return 8;
  if (!strcmp(type, "_f16") || !strcmp(type, "_bf16")) return 2;
  return strcmp(type, "_u8") ? 4 : 1;
}

#define U32(i) ((double)*(const unsigned *)arguments[i])
#define SIZE(i) ((double)*(const size_t *)arguments[i])

// What a launch has to read and to write, of this library's kernels and of candle's; 0 of those that are not known.
static double moved_by(const char *name, double threads, Pointer *arguments) {
  double width = width_of(name);
  int e, g, p, to_e, to_g, reads, writes;
  const char *sizes = strpbrk(name, "0123456789");
  if (!strncmp(name, "formula", 7) && sizes && sscanf(sizes, "%de_%dg_%dp_to_%de_%dg", &e, &g, &p, &to_e, &to_g) == 5) {
    double groups = U32(0), inner = U32(1), entries = groups * U32(2);
    if (!strncmp(name, "formula_stage", 13)) to_e = to_g = 0;
    return width * (entries * (e + to_e) + groups * (g + to_g) + inner * p);
  }
  if (sizes && (!strncmp(name, "step_", 5) || !strncmp(name, "average_", 8)) && sscanf(sizes, "%dr_%dw", &reads, &writes) == 2) {
    int average = name[0] == 'a'; // its entries are the second parameter, a step's the third
    return width * (reads + writes) * SIZE(average ? 1 : 2);
  }
  if (!strncmp(name, "columns_of_images", 17)) {
    double planes = U32(2) / (U32(5) * U32(6) * U32(7) * U32(8));
    return width * (U32(2) + planes * U32(3) * U32(4));
  }
  if (!strncmp(name, "images_of_columns", 17)) {
    double planes = U32(2) / (U32(3) * U32(4));
    return width * (U32(2) + planes * U32(5) * U32(6) * U32(7) * U32(8));
  }
  if (!strncmp(name, "listed_rows", 11)) return width * 2 * U32(3) * U32(4);
  if (!strncmp(name, "table_rows", 10)) return width * 5 * U32(5) * U32(6);
  if (!strncmp(name, "probe_signs", 11) || !strncmp(name, "dropout_decisions", 17)) return width * 4 * threads;
  if (!strncmp(name, "copy2d", 6)) return width * 2 * U32(2) * U32(3);
  if (!strncmp(name, "const_set", 9) || !strncmp(name, "fast_", 5)) return width * SIZE(0);
  if (!strncmp(name, "where_", 6)) return width * 3.25 * SIZE(0);
  if (name[0] == 'b' && strchr("admsu", name[1])) return width * 3 * SIZE(0); // badd, bdiv, bmul, bsub, bmaximum
  if (name[0] == 'u' || !strncmp(name, "affine", 6) || !strncmp(name, "cast", 4) || !strncmp(name, "is_", 3))
    return width * 2 * SIZE(0);
  return 0;
}

Result cuModuleGetFunction(Pointer *kernel, Pointer module, const char *name) {
  Result (*call)(Pointer *, Pointer, const char *) = real("cuModuleGetFunction");
  Result result = call(kernel, module, name);
  pthread_mutex_lock(&lock);
  int i = 0;
  while (i < kernel_count && kernels[i].kernel != *kernel) i++;
  if (!result && i < MOST) {
    kernels[i].kernel = *kernel;
    snprintf(kernels[i].name, NAME, "kernel %s", name);
    if (i == kernel_count) kernel_count++;
  }
  pthread_mutex_unlock(&lock);
  return result;
}

Result cuLaunchKernel(Pointer kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, Pointer stream, Pointer *arguments, Pointer *extra) {
  static Result (*call)(Pointer, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Pointer, Pointer *,
                        Pointer *);
  if (!call) call = real("cuLaunchKernel");
  double start = now();
  Result result = call(kernel, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra);
  note("cuLaunchKernel", now() - start, 0);
  if (waits()) wait_for(stream);
  double seconds = waits() ? now() - start : 0;
  for (int i = 0; i < kernel_count; i++)
    if (kernels[i].kernel == kernel) {
      note(kernels[i].name, seconds, moved_by(kernels[i].name + 7, (double)gx * bx, arguments));
      break;
    }
  return result;
}

// A call of this name with these parameters, which works on `stream` if there is one.
#define COUNTED(symbol, label, size, stream, types, parameters, arguments) \
  Result symbol parameters {                                               \
    static Result(*call) types;                                            \
    if (!call) call = real(#symbol);                                       \
    double start = now();                                                  \
    Result result = call arguments;                                        \
    if (waits() && (stream)) wait_for(stream);                             \
    note(label, now() - start, (double)(size));                            \
    return result;                                                         \
  }

COUNTED(cuMemAllocAsync, "cuMemAllocAsync", bytes, NULL, (Pointer *, size_t, Pointer),
        (Pointer * to, size_t bytes, Pointer stream), (to, bytes, stream))
COUNTED(cuMemFreeAsync, "cuMemFreeAsync", 0, NULL, (Pointer, Pointer), (Pointer from, Pointer stream), (from, stream))
COUNTED(cuMemcpyHtoDAsync_v2, bytes <= 256 ? "copy to the device, at most 256 bytes" : "copy to the device", bytes, stream,
        (Pointer, const void *, size_t, Pointer), (Pointer to, const void *from, size_t bytes, Pointer stream),
        (to, from, bytes, stream))
COUNTED(cuMemcpyDtoHAsync_v2, "copy to the host", bytes, NULL, (Pointer, Pointer, size_t, Pointer),
        (Pointer to, Pointer from, size_t bytes, Pointer stream), (to, from, bytes, stream))
COUNTED(cuMemcpyDtoDAsync_v2, "copy on the device", bytes, stream, (Pointer, Pointer, size_t, Pointer),
        (Pointer to, Pointer from, size_t bytes, Pointer stream), (to, from, bytes, stream))
COUNTED(cuMemsetD8Async, "cuMemsetD8Async", bytes, stream, (Pointer, unsigned char, size_t, Pointer),
        (Pointer to, unsigned char value, size_t bytes, Pointer stream), (to, value, bytes, stream))
COUNTED(cuStreamSynchronize, "cuStreamSynchronize", 0, NULL, (Pointer), (Pointer stream), (stream))
COUNTED(cuEventCreate, "cuEventCreate", 0, NULL, (Pointer *, unsigned), (Pointer * event, unsigned flags), (event, flags))
COUNTED(cuEventRecord, "cuEventRecord", 0, NULL, (Pointer, Pointer), (Pointer event, Pointer stream), (event, stream))
COUNTED(cuEventDestroy_v2, "cuEventDestroy", 0, NULL, (Pointer), (Pointer event), (event))
COUNTED(cuStreamWaitEvent, "cuStreamWaitEvent", 0, NULL, (Pointer, Pointer, unsigned),
        (Pointer stream, Pointer event, unsigned flags), (stream, event, flags))
COUNTED(cuCtxGetCurrent, "cuCtxGetCurrent", 0, NULL, (Pointer *), (Pointer * context), (context))
COUNTED(cuCtxSetCurrent, "cuCtxSetCurrent", 0, NULL, (Pointer), (Pointer context), (context))

Result cublasSetStream_v2(Pointer handle, Pointer stream) {
  Result (*call)(Pointer, Pointer) = real("cublasSetStream_v2");
  stream_of_products = stream;
  return call(handle, stream);
}

// The bytes of a product's matrices, and its multiplications noted.
static double product(double m, double n, double k, double batch, int type) {
  pthread_mutex_lock(&lock);
  multiplications += m * n * k * batch;
  pthread_mutex_unlock(&lock);
  return (type == 1 ? 8.0 : 4.0) * batch * (m * k + k * n + m * n);
}

COUNTED(cublasGemmStridedBatchedEx, "cublasGemmStridedBatchedEx", product(m, n, k, batch, at), stream_of_products,
        (Pointer, int, int, int, int, int, const void *, const void *, int, int, long long, const void *, int, int, long long,
         const void *, void *, int, int, long long, int, int, int),
        (Pointer h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at, int lda, long long sa,
         const void *b, int bt, int ldb, long long sb, const void *beta, void *c, int ct, int ldc, long long sc, int batch,
         int type, int how),
        (h, ta, tb, m, n, k, alpha, a, at, lda, sa, b, bt, ldb, sb, beta, c, ct, ldc, sc, batch, type, how))
