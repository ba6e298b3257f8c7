// The functions of glm4q._native that quantize.
#include "arguments.h"
#include "gram.h"
#include "record_checks.h"
#include "rounding.h"

namespace glm4q {

extern PyMethodDef QUANTIZE_METHODS[];

namespace {

size_t scratch_bytes(const InstructionSet& set, int64_t left, int64_t right, int64_t tokens) {
    return sizeof(uint32_t) * gram_scratch(set, static_cast<int>(left), static_cast<int>(right),
                                           static_cast<int>(tokens));
}

PyObject* py_gram_scratch(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments arguments("gram_scratch", given, count, 4);
    const InstructionSet* set = arguments.instruction_set();
    const int left = arguments.integer(), right = arguments.integer();
    const int tokens = arguments.integer();
    if (arguments.failed()) return nullptr;
    return PyLong_FromSize_t(scratch_bytes(*set, left, right, tokens));
}

PyObject* py_gram(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments arguments("gram", given, count, 3);
    const InstructionSet* set = arguments.instruction_set();
    const auto call = arguments.record<GramRecord>();
    const int threads = arguments.integer();
    if (!arguments.failed()) arguments.check(fault(call));
    if (arguments.failed()) return nullptr;
    const size_t needed = scratch_bytes(*set, call.left_columns, call.right_columns, call.tokens);
    if (static_cast<size_t>(call.scratch_bytes) < needed)
        arguments.check("the scratch is too small");
    if (arguments.failed()) return nullptr;
    return without_python([&] {
        gram(*set, call.left, static_cast<int>(call.left_columns), call.right,
             static_cast<int>(call.right_columns), static_cast<int>(call.tokens),
             {call.out, static_cast<size_t>(call.stride)}, call.scratch, threads);
    });
}

PyObject* py_round_rows(PyObject*, PyObject* const* given, Py_ssize_t count) {
    return call_with<RoundingRecord>(
        "round_rows", given, count,
        [](const InstructionSet& set, const RoundingRecord& call, int threads) {
            Rounding rounding;
            rounding.weight = call.weight;
            rounding.dtype = static_cast<Dtype>(call.dtype);
            rounding.importance = call.importance;
            rounding.outputs = static_cast<int>(call.outputs);
            rounding.inputs = static_cast<int>(call.inputs);
            rounding.groups = static_cast<int>(call.groups);
            rounding.bits = static_cast<int>(call.bits);
            rounding.symmetric = call.symmetric != 0;
            rounding.clips = call.clips;
            rounding.clip_count = static_cast<int>(call.clip_count);
            rounding.words = call.words;
            rounding.scales = call.scales;
            rounding.zeros = call.zero_points;
            rounding.stride = static_cast<size_t>(call.stride);
            round_rows(set, rounding, threads);
        });
}

Block block_of(const BlockRecord& record) {
    return {static_cast<int>(record.outputs), static_cast<int>(record.inputs),
            static_cast<int>(record.groups),  static_cast<int>(record.bits),
            static_cast<int>(record.first),   static_cast<int>(record.last)};
}

PyObject* py_compensate(PyObject*, PyObject* const* given, Py_ssize_t count) {
    return call_with<CompensationRecord>(
        "compensate", given, count,
        [](const InstructionSet& set, const CompensationRecord& call, int threads) {
            compensate(set,
                       {block_of(call.block), call.rows, call.left, call.root, call.group,
                        call.scales, call.zero_points, call.codes, call.errors},
                       threads);
        });
}

PyObject* py_descend(PyObject*, PyObject* const* given, Py_ssize_t count) {
    return call_with<DescentRecord>(
        "descend", given, count,
        [](const InstructionSet& set, const DescentRecord& call, int threads) {
            descend(set,
                    {block_of(call.block), call.centered, call.scales, call.zero_points, call.slope,
                     call.hessian, call.rescales != 0, call.change},
                    threads);
        });
}

PyObject* py_subtract(PyObject*, PyObject* const* given, Py_ssize_t count) {
    return call_with<SubtractionRecord>(
        "subtract", given, count,
        [](const InstructionSet& set, const SubtractionRecord& call, int threads) {
            subtract(set,
                     {call.change, call.matrix, call.out, static_cast<int>(call.rows),
                      static_cast<int>(call.terms), static_cast<int>(call.columns),
                      static_cast<int>(call.first), static_cast<int>(call.last)},
                     threads);
        });
}

}  // namespace

PyMethodDef QUANTIZE_METHODS[] = {
    method("gram_scratch", py_gram_scratch,
           "gram_scratch(instruction_set, left_columns, right_columns, tokens) -> bytes"),
    method("gram", py_gram, "gram(instruction_set, record, threads)"),
    method("round_rows", py_round_rows, "round_rows(instruction_set, record, threads)"),
    method("compensate", py_compensate, "compensate(instruction_set, record, threads)"),
    method("descend", py_descend, "descend(instruction_set, record, threads)"),
    method("subtract", py_subtract, "subtract(instruction_set, record, threads)"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace glm4q
