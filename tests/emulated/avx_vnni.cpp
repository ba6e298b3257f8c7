// AVX-VNNI on a machine that lacks it. Its instructions raise SIGILL; the handler decodes them as Intel's
// manual describes their encoding (VEX.256.66.0F38.W0, opcodes 50 and 52), computes them one number
// at a time, and goes on behind them. A program that is linked with this file has AVX-VNNI.
#include <signal.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr size_t XSAVE_HEADER = 512, YMM_HIGH = 576;  // places in the saved state
constexpr uint64_t YMM_BIT = 4;
constexpr uint8_t DOT_BYTES = 0x50, DOT_PAIRS = 0x52;
constexpr int GENERAL[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                           REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

struct Vector {
    int32_t words[8];
};

// The saved registers of a trapped program.
struct Registers {
    greg_t* general;
    uint8_t* state;

    explicit Registers(void* context) {
        auto* machine = &static_cast<ucontext_t*>(context)->uc_mcontext;
        general = machine->gregs;
        state = reinterpret_cast<uint8_t*>(machine->fpregs);
    }
    uint8_t* low(int number) { return state + offsetof(_libc_fpstate, _xmm) + 16 * number; }
    uint8_t* high(int number) { return state + YMM_HIGH + 16 * number; }
    Vector vector(int number) {
        Vector vector;
        std::memcpy(vector.words, low(number), 16);
        std::memcpy(vector.words + 4, high(number), 16);
        return vector;
    }
    void set_vector(int number, const Vector& vector) {
        std::memcpy(low(number), vector.words, 16);
        std::memcpy(high(number), vector.words + 4, 16);
        *reinterpret_cast<uint64_t*>(state + XSAVE_HEADER) |= YMM_BIT;
    }
    int64_t number(int place) const { return general[GENERAL[place]]; }
};

// Reads the operand of ModRM that is no register: an address in memory. Moves `code` behind it.
const void* address(const Registers& registers, const uint8_t*& code, int mode, int low, bool base_high,
                    bool index_high) {
    int64_t place = 0;
    bool wide = mode == 2;  // a displacement of four bytes
    if (low == 4) {         // a SIB byte
        const int scale = *code >> 6, index = (*code >> 3 & 7) + 8 * index_high, base = *code & 7;
        code++;
        if (index != 4) place += registers.number(index) << scale;
        if (base == 5 && mode == 0)
            wide = true;
        else
            place += registers.number(base + 8 * base_high);
    } else if (low == 5 && mode == 0) {  // relative to the next instruction, which begins here
        int32_t by;
        std::memcpy(&by, code, 4);
        code += 4;
        return code + by;
    } else {
        place += registers.number(low + 8 * base_high);
    }
    if (mode == 1) place += static_cast<int8_t>(*code++);
    if (wide) {
        int32_t by;
        std::memcpy(&by, code, 4);
        code += 4;
        place += by;
    }
    return reinterpret_cast<const void*>(place);
}

Vector dot_bytes(Vector sums, const Vector& codes, const Vector& x) {
    const auto* unsigned_bytes = reinterpret_cast<const uint8_t*>(codes.words);
    const auto* signed_bytes = reinterpret_cast<const int8_t*>(x.words);
    for (int at = 0; at < 32; at++) sums.words[at / 4] += unsigned_bytes[at] * signed_bytes[at];
    return sums;
}

Vector dot_pairs(Vector sums, const Vector& codes, const Vector& x) {
    const auto* one = reinterpret_cast<const int16_t*>(codes.words);
    const auto* other = reinterpret_cast<const int16_t*>(x.words);
    for (int at = 0; at < 16; at++) sums.words[at / 2] += one[at] * other[at];
    return sums;
}

void compute(int, siginfo_t*, void* context) {
    Registers registers(context);
    const auto* code = reinterpret_cast<const uint8_t*>(registers.general[REG_RIP]);
    // C4, then R X B inverted and the map 0F38, then W, the second operand inverted, 256 bits, 66.
    const uint8_t first = code[1], second = code[2], opcode = code[3], operands = code[4];
    if (code[0] != 0xc4 || (first & 31) != 2 || (second & 0x87) != 5 ||
        (opcode != DOT_BYTES && opcode != DOT_PAIRS)) {
        std::fprintf(stderr, "an instruction that is not AVX-VNNI's\n");
        std::abort();
    }
    const bool high = !(first & 0x80), index_high = !(first & 0x40), base_high = !(first & 0x20);
    const int to = (operands >> 3 & 7) + 8 * high, from = ~second >> 3 & 15;
    code += 5;
    Vector x;
    if (operands >> 6 == 3)
        x = registers.vector((operands & 7) + 8 * base_high);
    else
        std::memcpy(&x, address(registers, code, operands >> 6, operands & 7, base_high, index_high),
                    sizeof(x));
    const auto dot = opcode == DOT_BYTES ? dot_bytes : dot_pairs;
    registers.set_vector(to, dot(registers.vector(to), registers.vector(from), x));
    registers.general[REG_RIP] = reinterpret_cast<greg_t>(code);
}

// Before main begins.
const bool TRAPS = [] {
    if (__builtin_cpu_supports("avxvnni")) return false;  // the machine's own instructions serve
    struct sigaction action = {};
    action.sa_sigaction = compute;
    action.sa_flags = SA_SIGINFO;
    return sigaction(SIGILL, &action, nullptr) == 0;
}();

}  // namespace
