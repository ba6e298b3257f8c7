// Compares the kernels of an instruction set that this machine lacks with the plain C++ ones, on random
// numbers. `make test-neon` compiles it for ARM and runs it under qemu; `make test-avx-vnni` compiles
// it with avx_vnni.cpp beside it. It prints each case that differs, and fails if there is one.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "instruction_set.h"
#include "numbers.h"

using namespace glm4q;
using Floats = std::vector<float>;

namespace glm4q {
namespace EMULATED { extern const InstructionSet INSTRUCTION_SET; }
namespace scalar { extern const InstructionSet INSTRUCTION_SET; }
}  // namespace glm4q

namespace {

constexpr int INPUTS = 384, OUTPUTS = 40;  // a trap for each instruction takes microseconds
constexpr double TOLERANCE = 1e-5;  // of the root of the mean square; sums are of float32
constexpr double ROUNDED = 1e-3;    // where queries and weights are rounded to 16 bits
std::mt19937 bits_of_chance(1);
int cases = 0, failures = 0;

Floats normal(size_t count) {
    std::normal_distribution<float> distribution;
    Floats numbers(count);
    for (float& number : numbers) number = distribution(bits_of_chance);
    return numbers;
}

std::vector<uint32_t> words(size_t count) {
    std::vector<uint32_t> chance(count);
    for (uint32_t& word : chance) word = static_cast<uint32_t>(bits_of_chance());
    return chance;
}

void compare(const char* name, const Floats& emulated, const Floats& plain,
             double tolerance = TOLERANCE) {
    double most = 0, squares = 0;
    for (size_t at = 0; at < plain.size(); at++) {
        const double difference = std::fabs(double(emulated[at]) - plain[at]);
        most = difference <= most ? most : difference;  // NaN becomes the most
        squares += double(plain[at]) * plain[at];
    }
    cases++;
    if (most <= tolerance * std::sqrt(squares / double(plain.size()))) return;
    failures++;
    std::printf("%s differs by %.2g\n", name, most);
}

Floats product(const InstructionSet& set, const Weight& weight, const Floats& x, int rows) {
    const int group = weight.group, codes_bits = weight.activation_bits;
    const int segment = segment_inputs(group, codes_bits), chunk = chunk_inputs(group);
    std::vector<uint32_t> scratch(activations_bytes(rows, INPUTS, group, codes_bits) / 4);
    Activations codes = {rows,  INPUTS, segment, INPUTS / segment, chunk, INPUTS / chunk,
                         codes_bits == 16, scratch.data(), nullptr, nullptr, nullptr, nullptr, nullptr};
    codes.multiples = codes.codes + rows * INPUTS * (codes_bits / 8) / 4;
    codes.scales = reinterpret_cast<float*>(codes.multiples);
    codes.code_sums = codes.multiples + rows * codes.segments;
    codes.crossed = codes.code_sums + rows * codes.chunks;
    codes.units = reinterpret_cast<float*>(codes.crossed);
    const Blocks blocks(rows, set.block_rows);
    for (int block = 0; block < blocks.count; block++)
        set.quantize(x.data(), FLOAT32, weight.bits, codes, blocks.start(block),
                     blocks.start(block + 1));
    Floats out(static_cast<size_t>(rows) * OUTPUTS);
    set.multiply(weight, codes, out.data(), FLOAT32, 0, OUTPUTS);
    return out;
}

void compare_products(int bits, bool book, int activation_bits, int group, bool wide) {
    const int groups = INPUTS / group;
    const auto codes = words(INPUTS * bits / 32 * OUTPUTS), zeros = words(groups * OUTPUTS * bits / 32);
    const Floats scales = normal(groups * OUTPUTS);
    std::vector<uint16_t> halves(scales.size());
    std::transform(scales.begin(), scales.end(), halves.begin(), to_float16);
    float numbers[BOOK_SIZE];
    for (int code = 0; code < BOOK_SIZE; code++) numbers[code] = static_cast<float>(code * 14 - 112);
    const void* chosen = wide ? static_cast<const void*>(scales.data()) : halves.data();
    for (const uint32_t* zero_points : {static_cast<const uint32_t*>(nullptr), zeros.data()}) {
        if (book && zero_points) continue;
        const Weight weight = {codes.data(), chosen, zero_points, book ? numbers : nullptr,
                               OUTPUTS, INPUTS, bits, group, wide, activation_bits};
        for (int rows : {1, 3, 4, 7, 20}) {
            const Floats x = normal(static_cast<size_t>(rows) * INPUTS);
            char name[80];
            std::snprintf(name, sizeof(name), "%d bits, book %d, activations of %d, group %d, %d rows",
                          bits, book, activation_bits, group, rows);
            compare(name, product(EMULATED::INSTRUCTION_SET, weight, x, rows),
                    product(scalar::INSTRUCTION_SET, weight, x, rows));
        }
    }
}

template <class Compute>
void compare_rows(const char* name, size_t count, Compute compute) {
    Floats emulated(count), plain(count);
    compute(EMULATED::INSTRUCTION_SET, emulated.data());
    compute(scalar::INSTRUCTION_SET, plain.data());
    compare(name, emulated, plain);
}

void compare_functions_of_rows() {
    constexpr int SIZE = 576, ROWS = 3;
    const Floats x = normal(2 * SIZE * ROWS), weight = normal(SIZE);
    const Rows rows = {0, ROWS, SIZE, FLOAT32, 0, SIZE};
    compare_rows("norm", SIZE * ROWS, [&](const InstructionSet& set, float* out) {
        set.norm(rows, x.data(), weight.data(), 1e-5f, out);
    });
    compare_rows("gate", SIZE * ROWS, [&](const InstructionSet& set, float* out) {
        set.gate(rows, x.data(), out);
    });
}

// Attention to keys and values of these formats; INT4 keys are stored less a centre.
void compare_attention(const char* name, KVFormat key_format, KVFormat value_format) {
    constexpr int ROWS = 6, SIZE = 64, CACHED = 150;
    const auto numbers = [](KVFormat format) {
        if (format != KV_BFLOAT16) return words(CACHED * SIZE / 4);
        const Floats chance = normal(CACHED * SIZE);
        std::vector<uint32_t> pairs(CACHED * SIZE / 2);
        auto* halves = reinterpret_cast<uint16_t*>(pairs.data());
        std::transform(chance.begin(), chance.end(), halves, to_bfloat16);
        return pairs;
    };
    auto keys = numbers(key_format), values = numbers(value_format);
    const Floats steps = normal(2 * CACHED);
    std::vector<uint16_t> scales(steps.size());
    std::transform(steps.begin(), steps.end(), scales.begin(),
                   [](float step) { return to_float16(std::fabs(step) / 128); });
    Floats queries = normal(ROWS * SIZE), centers = normal(SIZE), mixed[2];
    const double frequencies[] = {1, 0.1, 0.01};
    const auto codes = [](std::vector<uint32_t>& from) { return reinterpret_cast<uint8_t*>(from.data()); };
    for (int set = 0; set < 2; set++) {
        mixed[set].resize(queries.size());
        Attention attention = {};
        attention.batch = attention.tokens = attention.kv_heads = 1;
        attention.shared = ROWS, attention.size = SIZE;
        attention.room = attention.length = CACHED;
        float* center = key_format == KV_INT4 ? centers.data() : nullptr;
        attention.keys = {key_format, codes(keys), scales.data(), center};
        attention.values = {value_format, codes(values), scales.data(), nullptr};
        attention.frequencies = frequencies, attention.pairs = 3, attention.attention_factor = 1;
        attention.queries = queries.data(), attention.mixed = mixed[set].data();
        (set ? scalar::INSTRUCTION_SET : EMULATED::INSTRUCTION_SET)
            .attend(attention, {0, 0, ROWS, 0, 1, 1});
    }
    compare(name, mixed[0], mixed[1], key_format == KV_BFLOAT16 ? TOLERANCE : ROUNDED);
}

}  // namespace

int main() {
    for (int bits : {4, 8})
        for (int book = 0; book <= (bits == 4); book++)
            for (int activation_bits : {8, 16})
                for (int group : {32, 64, 96, 128, 384})
                    for (bool wide : {false, true})
                        compare_products(bits, book, activation_bits, group, wide);
    compare_functions_of_rows();
    compare_attention("attention to bfloat16 numbers", KV_BFLOAT16, KV_BFLOAT16);
    compare_attention("attention to INT8 codes", KV_INT8, KV_INT8);
    compare_attention("attention to INT8 keys and INT4 values", KV_INT8, KV_INT4);
    compare_attention("attention to INT4 codes", KV_INT4, KV_INT4);
    std::printf("%d cases, %d differ\n", cases, failures);
    return failures > 0;
}
