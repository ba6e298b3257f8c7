#include "instruction_set.h"

#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace glm4q {

namespace scalar { extern const InstructionSet INSTRUCTION_SET; }
#if defined(__x86_64__)
namespace avx2 { extern const InstructionSet INSTRUCTION_SET; }
namespace avx_vnni { extern const InstructionSet INSTRUCTION_SET; }
namespace avx_vnni_evex { extern const InstructionSet INSTRUCTION_SET; }
namespace avx512 { extern const InstructionSet INSTRUCTION_SET; }
namespace avx512_bf16 { extern const InstructionSet INSTRUCTION_SET; }
#elif defined(__aarch64__)
namespace neon { extern const InstructionSet INSTRUCTION_SET; }
#endif

#if defined(__x86_64__)
// Compilers learned the name of AVX-VNNI late, so the processor is asked itself.
static bool has_avx_vnni() {
    unsigned eax = 0, ebx, ecx, edx;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}
#endif

// The instruction sets of this processor, the newest first.
struct Available {
    const InstructionSet* sets[5] = {};
    int count = 0;
    void add(const InstructionSet* set) { sets[count++] = set; }
};

static Available ask_processor() {
    Available available;
#if defined(__x86_64__)
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool has_avx512 = __builtin_cpu_supports("avx512vnni") &&
                            __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl");
    if (has_avx512) {
        if (__builtin_cpu_supports("avx512bf16")) available.add(&avx512_bf16::INSTRUCTION_SET);
        available.add(&avx512::INSTRUCTION_SET);
    }
    if (has_avx2 && has_avx_vnni())
        available.add(&avx_vnni::INSTRUCTION_SET);
    else if (has_avx2 && has_avx512)
        available.add(&avx_vnni_evex::INSTRUCTION_SET);
    if (has_avx2) available.add(&avx2::INSTRUCTION_SET);
#elif defined(__aarch64__) && defined(__linux__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) available.add(&neon::INSTRUCTION_SET);
#elif defined(__aarch64__)
    available.add(&neon::INSTRUCTION_SET);  // all of Apple's chips have the dot product
#endif
    available.add(&scalar::INSTRUCTION_SET);
    return available;
}

const InstructionSet* instruction_set_of(int number) {
    // Asked once: in a virtual machine each question to the processor takes some microseconds.
    static const Available available = ask_processor();
    return number >= 1 && number <= available.count ? available.sets[number - 1] : nullptr;
}

int find_instruction_set(const char* name) {
    for (int number = 1; const InstructionSet* set = instruction_set_of(number); number++)
        if (std::strcmp(name, "auto") == 0 || std::strcmp(name, set->name) == 0) return number;
    return 0;
}

}  // namespace glm4q
