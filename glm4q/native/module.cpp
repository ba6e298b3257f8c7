// glm4q._native: the kernels as functions of records. The functions of glm4q/kernels/cpu/ and
// quantize/methods/native.py check all tensors before they fill a record.
#include "arguments.h"
#include "layers.h"
#include "record_checks.h"

namespace glm4q {
extern PyMethodDef QUANTIZE_METHODS[];
}

namespace {

using namespace glm4q;

PyObject* py_find_instruction_set(PyObject*, PyObject* const* given, Py_ssize_t count) {
    if (count != 1 || !PyUnicode_Check(given[0])) {
        PyErr_SetString(PyExc_TypeError, "find_instruction_set takes a name");
        return nullptr;
    }
    const char* name = PyUnicode_AsUTF8AndSize(given[0], nullptr);
    return name ? PyLong_FromLong(find_instruction_set(name)) : nullptr;
}

PyObject* py_instruction_set_name(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments arguments("instruction_set_name", given, count, 1);
    const InstructionSet* set = arguments.instruction_set();
    return arguments.failed() ? nullptr : PyUnicode_FromString(set->name);
}

PyObject* py_matmul(PyObject*, PyObject* const* given, Py_ssize_t count) {
    return call_with<MatmulRecord>(
        "matmul", given, count,
        [](const InstructionSet& set, const MatmulRecord& call, int threads) {
            Product product = product_of(call.weight, call.out, static_cast<Dtype>(call.out_dtype));
            product.bias = nullptr;
            matmul(set, &product, 1, call.x, static_cast<int>(call.rows),
                   static_cast<Dtype>(call.dtype), call.scratch, threads);
        });
}

PyObject* py_matmul_dense(PyObject*, PyObject* const* given, Py_ssize_t count) {
    return call_with<DenseMatmulRecord>(
        "matmul_dense", given, count,
        [](const InstructionSet& set, const DenseMatmulRecord& call, int threads) {
            matmul_dense(set, call.weight, static_cast<int>(call.outputs),
                         static_cast<int>(call.inputs), call.x, static_cast<int>(call.rows),
                         static_cast<Dtype>(call.dtype), call.out,
                         static_cast<Dtype>(call.out_dtype), threads);
        });
}

PyObject* py_attend(PyObject*, PyObject* const* given, Py_ssize_t count) {
    return call_with<AttentionRecord>(
        "attend", given, count,
        [](const InstructionSet& set, const AttentionRecord& call, int threads) {
            Attention attention;
            attention.batch = static_cast<int>(call.batch);
            attention.tokens = static_cast<int>(call.tokens);
            attention.kv_heads = static_cast<int>(call.kv_heads);
            attention.shared = static_cast<int>(call.shared);
            attention.size = static_cast<int>(call.head_size);
            attention.room = static_cast<int>(call.room);
            attention.length = static_cast<int>(call.length);
            attention.lengths = attention.places = nullptr;
            attention.keys = cached_vectors(call.keys);
            attention.values = cached_vectors(call.values);
            attention.frequencies = call.frequencies;
            attention.pairs = static_cast<int>(call.pairs);
            attention.attention_factor = call.attention_factor;
            attention.queries = call.queries;
            attention.mixed = call.mixed;
            attention.partials = call.partial_sums;
            attention.partials_room = static_cast<size_t>(call.partial_sums_bytes) / sizeof(float);
            attend(set, attention, threads);
        });
}

PyObject* py_norm(PyObject*, PyObject* const* given, Py_ssize_t count) {
    return call_with<NormRecord>(
        "norm", given, count, [](const InstructionSet& set, const NormRecord& call, int threads) {
            norm(set, call.x, call.weight, static_cast<float>(call.eps),
                 static_cast<int>(call.rows), static_cast<int>(call.size),
                 static_cast<Dtype>(call.dtype), call.out, threads);
        });
}

// Each sequence needs a place in the cache and a length that the cache has room for.
const char* fault_of_sequences(const StepRecord& step, const std::vector<int64_t>& lengths,
                               const std::vector<int64_t>& places) {
    const auto decoding = static_cast<size_t>(step.decoding);
    const size_t sequences = decoding + static_cast<size_t>(step.batch);
    if (lengths.size() != sequences || places.size() != sequences)
        return "lengths and places are not as many as sequences";
    for (size_t sequence = 0; sequence < sequences; sequence++) {
        const int64_t tokens = sequence < decoding ? 1 : step.tokens;
        if (lengths[sequence] < tokens || lengths[sequence] > step.room)
            return "the cache has no room for so many tokens";
        if (places[sequence] < 0 || places[sequence] >= step.cache_rows)
            return "the cache has no such place for a sequence";
    }
    return nullptr;
}

PyObject* py_run_layers(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments arguments("run_layers", given, count, 6);
    const InstructionSet* set = arguments.instruction_set();
    const auto layers = arguments.array<LayerRecord>();
    const auto step = arguments.record<StepRecord>();
    const auto lengths = arguments.array<int64_t>();
    const auto places = arguments.array<int64_t>();
    const int threads = arguments.integer();
    if (!arguments.failed()) arguments.check(fault(step));
    if (!arguments.failed()) arguments.check(fault_of_sequences(step, lengths, places));
    for (size_t layer = 0; layer < layers.size() && !arguments.failed(); layer++)
        arguments.check(fault(layers[layer], step));
    if (arguments.failed()) return nullptr;
    return without_python([&] { run_layers(*set, layers, step, lengths, places, threads); });
}

PyMethodDef METHODS[] = {
    method("instruction_set_name", py_instruction_set_name,
           "instruction_set_name(number) -> the name by which it is found"),
    method("find_instruction_set", py_find_instruction_set,
           "find_instruction_set(name) -> its number on this machine; 0 if it cannot run here"),
    method("matmul", py_matmul, "matmul(instruction_set, record, threads)"),
    method("matmul_dense", py_matmul_dense, "matmul_dense(instruction_set, record, threads)"),
    method("attend", py_attend, "attend(instruction_set, record, threads)"),
    method("norm", py_norm, "norm(instruction_set, record, threads)"),
    method("run_layers", py_run_layers,
           "run_layers(instruction_set, layers, step, lengths, places, threads)"),
    {nullptr, nullptr, 0, nullptr},
};

const struct {
    const char* name;
    long value;
} CONSTANTS[] = {
    {"BFLOAT16", BFLOAT16},
    {"FLOAT32", FLOAT32},
    {"KV_FLOAT32", KV_FLOAT32},
    {"KV_BFLOAT16", KV_BFLOAT16},
    {"KV_INT8", KV_INT8},
    {"KV_INT4", KV_INT4},
    {"KV_GROUP", KV_GROUP},
    {"LARGEST_INT8", LARGEST_INT8},
    {"LARGEST_INT4", LARGEST_INT4},
    {"SMALLEST_SCALE_EXPONENT", SMALLEST_SCALE_EXPONENT},
    {"LARGEST_HEAD", LARGEST_HEAD},
    {"FEW_TOKENS", FEW_TOKENS},
    {"SEGMENT", SEGMENT},
    {"LARGEST_MULTIPLE", LARGEST_MULTIPLE},
    {"LARGEST_INT16", LARGEST_INT16},
    {"CHUNK", CHUNK},
    {"WORD_BITS", WORD_BITS},
    {"BOOK_SIZE", BOOK_SIZE},
    {"LARGEST_DENSE_NUMBERS", LARGEST_DENSE_NUMBERS},
    {"LARGEST_BLOCK", LARGEST_BLOCK},
    {"RECORDS_CHECKSUM", RECORDS_CHECKSUM},
};

PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_native", "Kernels of the CPU.", 0, METHODS,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__native() {
    PyObject* module = PyModule_Create(&MODULE);
    if (module && PyModule_AddFunctions(module, QUANTIZE_METHODS) < 0) Py_CLEAR(module);
    for (const auto& constant : CONSTANTS)
        if (module && PyModule_AddIntConstant(module, constant.name, constant.value) < 0)
            Py_CLEAR(module);
    return module;
}
