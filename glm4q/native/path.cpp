#include "path.h"

#include <cstring>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace glm4q {

namespace scalar { extern const Path PATH; }
#if defined(__x86_64__)
namespace avx2 { extern const Path PATH; }
namespace avx512 { extern const Path PATH; }
namespace avx512_bf16 { extern const Path PATH; }
#elif defined(__aarch64__)
namespace neon { extern const Path PATH; }
#endif

namespace {

// The paths that this machine can run, best first; null after the last.
const Path* runnable(int place) {
    const Path* found[4] = {};
    int count = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
        if (__builtin_cpu_supports("avx512bf16")) found[count++] = &avx512_bf16::PATH;
        found[count++] = &avx512::PATH;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        found[count++] = &avx2::PATH;
#elif defined(__aarch64__) && defined(__linux__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) found[count++] = &neon::PATH;
#elif defined(__aarch64__)
    found[count++] = &neon::PATH;  // Apple's all have the dot product
#endif
    found[count++] = &scalar::PATH;
    return place < count ? found[place] : nullptr;
}

}  // namespace

const Path* find_path(const char* name) {
    for (int place = 0; const Path* path = runnable(place); place++)
        if (std::strcmp(name, "auto") == 0 || std::strcmp(name, path->name) == 0) return path;
    return nullptr;
}

}  // namespace glm4q
