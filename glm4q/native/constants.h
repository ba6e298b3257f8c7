// Constants that Python and C++ share. glm4q/kernels/constants.py has the same values, the
// extension exports these, and a test compares the two.
#pragma once

namespace glm4q {

enum Dtype : int { BFLOAT16 = 0, FLOAT32 = 1 };

// Formats of cached vectors: glm4q/memory/kv/ has a file for each.
enum KVFormat : int { KV_FLOAT32 = 0, KV_BFLOAT16 = 1, KV_INT8 = 2, KV_INT4 = 3 };

constexpr int KV_GROUP = 64;  // numbers of an INT4 vector that share a scale
constexpr int LARGEST_INT8 = 127;
constexpr int LARGEST_INT4 = 15;
constexpr int SMALLEST_SCALE_EXPONENT = -24;  // the smallest scale is 2^-24, float16's least number

constexpr int LARGEST_HEAD = 256;  // numbers of a head's vectors: room of buffers on the stack

constexpr int FEW_TOKENS = 8;  // of a step whose tokens have the same bits as if each ran alone

constexpr int SEGMENT = 32;  // inputs that share a scale of 8-bit activations, at most
constexpr int LARGEST_MULTIPLE = 8192;  // of a chunk's unit: scales of segments of 8-bit codes
constexpr int LARGEST_INT16 = 32512;  // of activations: with the largest code of a weight, 16 bits
constexpr int CHUNK = 128;   // inputs that are multiplied before a weight's scale, at most
constexpr int WORD_BITS = 32;
constexpr int BOOK_SIZE = 16;  // numbers that 4-bit codes can stand for

constexpr int LARGEST_DENSE_NUMBERS = 1 << 18;  // activations that `matmul_dense` keeps as floats
constexpr int LARGEST_BLOCK = 128;  // inputs that `compensate` and `descend` round in one call

}  // namespace glm4q
