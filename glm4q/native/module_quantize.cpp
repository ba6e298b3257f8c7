// The functions of glm4q._native that quantize.
#include "arguments.h"
#include "gram.h"
#include "path.h"
#include "rounding.h"

namespace glm4q {

extern PyMethodDef QUANTIZE_METHODS[];

namespace {

PyObject* py_gram_scratch(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments next(given, count);
    const Path* path = next;
    const int left = next, right = next, tokens = next;
    if (next.failed()) return nullptr;
    return PyLong_FromSize_t(4 * gram_scratch(*path, left, right, tokens));
}

PyObject* py_gram(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments next(given, count);
    const Path* path = next;
    const uint16_t* left = next;
    const int left_columns = next;
    const uint16_t* right = next;
    const int right_columns = next, tokens = next;
    float* out = next;
    uint32_t* scratch = next;
    return run(next, [&](int threads) { gram(*path, left, left_columns, right, right_columns, tokens, out, scratch, threads); });
}

PyObject* py_round_rows(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments next(given, count);
    const Path* path = next;
    Rounding rounding;
    rounding.weight = next;
    rounding.dtype = static_cast<Dtype>(next.integer());
    rounding.importance = next;
    rounding.outputs = next;
    rounding.inputs = next;
    rounding.groups = next;
    rounding.bits = next;
    rounding.symmetric = next.integer() != 0;
    rounding.clips = next;
    rounding.clip_count = next;
    rounding.words = next;
    rounding.scales = next;
    rounding.zeros = next;
    rounding.stride = static_cast<size_t>(next.integer());
    return run(next, [&](int threads) { round_rows(*path, rounding, threads); });
}

void read_place(Arguments& next, Block& block) {
    block.outputs = next;
    block.inputs = next;
    block.groups = next;
    block.bits = next;
    block.first = next;
    block.last = next;
}

PyObject* py_compensate(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments next(given, count);
    const Path* path = next;
    Compensation block;
    block.left = next;
    block.root = next;
    block.group = next;
    read_place(next, block);
    block.scales = next;
    block.zeros = next;
    block.codes = next;
    block.errors = next;
    return run(next, [&](int threads) { compensate(*path, block, threads); });
}

PyObject* py_descend(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments next(given, count);
    const Path* path = next;
    Descent block;
    block.centered = next;
    block.scales = next;
    block.zeros = next;
    block.slope = next;
    block.hessian = next;
    read_place(next, block);
    block.rescales = next.integer() != 0;
    block.change = next;
    return run(next, [&](int threads) { descend(*path, block, threads); });
}

}  // namespace

PyMethodDef QUANTIZE_METHODS[] = {
    method("gram_scratch", py_gram_scratch,
           "gram_scratch(path, left columns, right columns, tokens) -> bytes"),
    method("gram", py_gram,
           "gram(path, left, columns, right, columns, tokens, out, scratch, threads)"),
    method("round_rows", py_round_rows,
           "round_rows(path, weight, dtype, importance, outputs, inputs, groups, bits, symmetric, "
           "clips, clip count, words, scales, zeros, stride, threads)"),
    method("compensate", py_compensate,
           "compensate(path, left, root, group, outputs, inputs, groups, bits, first, last, scales, "
           "zeros, codes, errors, threads)"),
    method("descend", py_descend,
           "descend(path, centered, scales, zeros, slope, hessian, outputs, inputs, groups, bits, "
           "first, last, rescales, change, threads)"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace glm4q
