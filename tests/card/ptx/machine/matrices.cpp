// Tensor cores: how a warp's lanes share matrices, and the products of them. As the PTX manual has
// it, in a fragment of 16-bit numbers lane L holds row L / 4, columns 2 (L % 4) and the next.
#include <cmath>

#include "lanes.h"

namespace {

void need_all(uint32_t mask) {
    if (mask != ALL) throw Fault{"an instruction of a whole warp is met by a part of it"};
}

uint32_t matrix_row(Warp& warp, const Line& line, int32_t addresses, int matrix, int row) {
    return warp.row<uint32_t>(addresses)[8 * matrix + row] + uint32_t(line.offset);
}

void count_rows(Warp& warp, const Line& line, int32_t addresses) {  // a matrix takes one wavefront or more
    for (int matrix = 0; matrix < line.count; ++matrix) {
        uint32_t rows[LANES] = {};
        for (int row = 0; row < 8; ++row) rows[row] = matrix_row(warp, line, addresses, matrix, row);
        count_banks(warp, line, rows, 0xff, 16);
    }
}

void load_matrices(Warp& warp, const Line& line, uint32_t mask) {
    need_all(mask);
    const int32_t addresses = line.operand[line.count];
    uint16_t numbers[4][8][8];
    for (int matrix = 0; matrix < line.count; ++matrix)
        for (int row = 0; row < 8; ++row) {
            const uint32_t address = matrix_row(warp, line, addresses, matrix, row);
            if (address % 16 || address + 16ull > warp.block->shared.size())
                throw Fault{"ldmatrix at byte " + std::to_string(address) + " of shared memory"};
            read_shared(warp, address, 16, 8 * matrix + row, ALL, reinterpret_cast<uint8_t*>(numbers[matrix][row]));
        }
    for (int matrix = 0; matrix < line.count; ++matrix)
        for (int lane = 0; lane < LANES; ++lane) {
            const int row = lane / 4, column = lane % 4 * 2;
            const bool transposed = line.flags & TRANSPOSED;
            const uint16_t low = transposed ? numbers[matrix][column][row] : numbers[matrix][row][column];
            const uint16_t high = transposed ? numbers[matrix][column + 1][row] : numbers[matrix][row][column + 1];
            warp.row<uint32_t>(line.operand[matrix])[lane] = uint32_t(high) << 16 | low;
        }
    count_rows(warp, line, addresses);
}

void store_matrices(Warp& warp, const Line& line, uint32_t mask) {
    need_all(mask);
    for (int matrix = 0; matrix < line.count; ++matrix) {
        uint16_t given[8][8];
        for (int lane = 0; lane < LANES; ++lane) {
            const uint32_t pair = warp.row<uint32_t>(line.operand[matrix + 1])[lane];
            for (int i = 0; i < 2; ++i) {
                const int row = lane / 4, column = lane % 4 * 2 + i;
                (line.flags & TRANSPOSED ? given[column][row] : given[row][column]) = uint16_t(pair >> 16 * i);
            }
        }
        for (int row = 0; row < 8; ++row) {
            const uint32_t address = matrix_row(warp, line, line.operand[0], matrix, row);
            if (address % 16) throw Fault{"stmatrix at byte " + std::to_string(address) + " of shared memory"};
            write_shared(warp, address, 16, 8 * matrix + row, reinterpret_cast<uint8_t*>(given[row]));
        }
    }
    count_rows(warp, line, line.operand[0]);
}

// d = a b + c: a 16 x K, b K x 8, c and d 16 x 8 in float32, products and sums in double.
template <int K, float (*convert)(uint16_t)>
void multiply(Warp& warp, const Line& line, uint32_t mask) {
    need_all(mask);
    constexpr int A = K / 4, B = K / 8;  // registers
    double a[16][K], b[K][8];
    for (int lane = 0; lane < LANES; ++lane) {
        const int group = lane / 4, pair = lane % 4 * 2;
        for (int i = 0; i < A; ++i) {
            const uint32_t two = warp.row<uint32_t>(line.operand[4 + i])[lane];
            const int row = group + 8 * (i % 2), column = pair + 8 * (i / 2);
            a[row][column] = convert(uint16_t(two)), a[row][column + 1] = convert(uint16_t(two >> 16));
        }
        for (int i = 0; i < B; ++i) {
            const uint32_t two = warp.row<uint32_t>(line.operand[4 + A + i])[lane];
            b[pair + 8 * i][group] = convert(uint16_t(two)), b[pair + 8 * i + 1][group] = convert(uint16_t(two >> 16));
        }
    }
    float sums[4][LANES];
    for (int i = 0; i < 4; ++i)
        for (int lane = 0; lane < LANES; ++lane) {
            const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
            double sum = warp.row<float>(line.operand[4 + A + B + i])[lane];
            for (int k = 0; k < K; ++k) sum += a[row][k] * b[k][column];
            sums[i][lane] = float(sum);
        }
    for (int i = 0; i < 4; ++i) std::memcpy(warp.row<float>(line.operand[i]), sums[i], sizeof sums[i]);
}

// The same of 8-bit whole numbers, 16 x 32 by 32 x 8, in int32: four numbers in a register.
void multiply_bytes(Warp& warp, const Line& line, uint32_t mask) {
    need_all(mask);
    int32_t a[16][32], b[32][8], sums[4][LANES];
    for (int lane = 0; lane < LANES; ++lane) {
        const int group = lane / 4, four = lane % 4 * 4;
        for (int byte = 0; byte < 4; ++byte) {
            for (int i = 0; i < 4; ++i)
                a[group + 8 * (i % 2)][four + byte + 16 * (i / 2)] = int8_t(warp.row<uint32_t>(line.operand[4 + i])[lane] >> 8 * byte);
            for (int i = 0; i < 2; ++i)
                b[four + byte + 16 * i][group] = int8_t(warp.row<uint32_t>(line.operand[8 + i])[lane] >> 8 * byte);
        }
    }
    for (int i = 0; i < 4; ++i)
        for (int lane = 0; lane < LANES; ++lane) {
            const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
            uint32_t sum = warp.row<uint32_t>(line.operand[10 + i])[lane];
            for (int k = 0; k < 32; ++k) sum += uint32_t(a[row][k] * b[k][column]);
            sums[i][lane] = int32_t(sum);
        }
    for (int i = 0; i < 4; ++i) std::memcpy(warp.row<int32_t>(line.operand[i]), sums[i], sizeof sums[i]);
}

Opcode product(const char* name, Handler handler, int registers) {
    Opcode opcode{name, handler, {}};
    for (int i = 0; i < OPERANDS; ++i) opcode.bytes[i] = i < registers ? 4 : -1;
    return opcode;
}

}  // namespace

void add_matrices(std::vector<Opcode>& all) {
    all.push_back({"ldmatrix", load_matrices, {}});
    all.push_back({"stmatrix", store_matrices, {}});
    all.push_back(product("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", multiply<16, from_f16>, 14));
    all.push_back(product("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", multiply<16, from_bf16>, 14));
    all.push_back(product("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", multiply<8, from_f16>, 11));
    all.push_back(product("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", multiply<8, from_bf16>, 11));
    all.push_back(product("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", multiply_bytes, 14));
}
