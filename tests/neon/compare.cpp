// Compares NEON's kernels with the plain C++ ones on random numbers. `make test-neon` compiles it for
// ARM and runs it under qemu. It prints each case that differs, and fails if there is one.
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
namespace neon { extern const InstructionSet INSTRUCTION_SET; }
namespace scalar { extern const InstructionSet INSTRUCTION_SET; }
}  // namespace glm4q

namespace {

constexpr int INPUTS = 768, OUTPUTS = 104;
constexpr double TOLERANCE = 1e-5;  // of the root of the mean square; sums are of float32
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

void compare(const char* name, const Floats& neon, const Floats& plain) {
    double most = 0, squares = 0;
    for (size_t at = 0; at < plain.size(); at++) {
        const double difference = std::fabs(double(neon[at]) - plain[at]);
        most = difference <= most ? most : difference;  // NaN becomes the most
        squares += double(plain[at]) * plain[at];
    }
    cases++;
    if (most <= TOLERANCE * std::sqrt(squares / double(plain.size()))) return;
    failures++;
    std::printf("%s differs by %.2g\n", name, most);
}

Floats product(const InstructionSet& set, const Weight& weight, const Floats& x, int rows) {
    const int group = weight.group, codes_bits = weight.activation_bits;
    const int segment = segment_inputs(group, codes_bits), chunk = chunk_inputs(group);
    std::vector<uint32_t> scratch(activations_bytes(rows, INPUTS, group, codes_bits) / 4);
    Activations codes = {rows,  INPUTS, segment, INPUTS / segment, chunk, INPUTS / chunk,
                         codes_bits == 16, scratch.data(), nullptr, nullptr};
    codes.scales = reinterpret_cast<float*>(codes.codes + rows * INPUTS * (codes_bits / 8) / 4);
    codes.sums = codes.scales + rows * codes.segments;
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
        for (int rows : {1, 2, 3, 4, 7, 9, 20, 40}) {
            const Floats x = normal(static_cast<size_t>(rows) * INPUTS);
            char name[80];
            std::snprintf(name, sizeof(name), "%d bits, book %d, activations of %d, group %d, %d rows",
                          bits, book, activation_bits, group, rows);
            compare(name, product(neon::INSTRUCTION_SET, weight, x, rows),
                    product(scalar::INSTRUCTION_SET, weight, x, rows));
        }
    }
}

template <class Compute>
void compare_rows(const char* name, size_t count, Compute compute) {
    Floats neon(count), plain(count);
    compute(neon::INSTRUCTION_SET, neon.data());
    compute(scalar::INSTRUCTION_SET, plain.data());
    compare(name, neon, plain);
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

}  // namespace

int main() {
    for (int bits : {4, 8})
        for (int book = 0; book <= (bits == 4); book++)
            for (int activation_bits : {8, 16})
                for (int group : {32, 64, 96, 128, 384})
                    for (bool wide : {false, true})
                        compare_products(bits, book, activation_bits, group, wide);
    compare_functions_of_rows();
    std::printf("%d cases, %d differ\n", cases, failures);
    return failures > 0;
}
