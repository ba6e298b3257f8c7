// glm4q._native: the kernels as functions of addresses and sizes. Callers see to their being right.
#include "arguments.h"
#include "layers.h"
#include "path.h"

namespace glm4q {
extern PyMethodDef QUANTIZE_METHODS[];
}

namespace {

using namespace glm4q;

PyObject* py_find_path(PyObject*, PyObject* const* given, Py_ssize_t count) {
    if (count != 1 || !PyUnicode_Check(given[0])) {
        PyErr_SetString(PyExc_TypeError, "find_path takes a name");
        return nullptr;
    }
    const char* name = PyUnicode_AsUTF8AndSize(given[0], nullptr);
    return name ? PyLong_FromVoidPtr(const_cast<Path*>(find_path(name))) : nullptr;
}

PyObject* py_matmul(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments next(given, count);
    const Path* path = next;
    Product product;
    product.weight.qweight = next;
    product.weight.scales = next;
    product.weight.qzeros = next;
    product.weight.book = next;
    product.weight.outputs = next;
    product.weight.inputs = next;
    product.weight.bits = next;
    product.weight.group = next;
    product.weight.wide = next.integer() != 0;
    product.bias = nullptr;
    const void* x = next;
    product.out = next;
    const int rows = next;
    const auto dtype = static_cast<Dtype>(next.integer());
    product.out_dtype = static_cast<Dtype>(next.integer());
    void* scratch = next;
    return run(next, [&](int threads) { matmul(*path, &product, 1, x, rows, dtype, scratch, threads); });
}

PyObject* py_matmul_dense(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments next(given, count);
    const Path* path = next;
    const uint16_t* weight = next;
    const int outputs = next, inputs = next;
    const void* x = next;
    const int rows = next;
    const auto dtype = static_cast<Dtype>(next.integer());
    void* out = next;
    const auto out_dtype = static_cast<Dtype>(next.integer());
    return run(next, [&](int threads) { matmul_dense(*path, weight, outputs, inputs, x, rows, dtype, out, out_dtype, threads); });
}

Side side(Arguments& next) {
    Side made;
    made.format = static_cast<KVFormat>(next.integer());
    made.codes = next;
    made.scales = next;
    made.centers = next;
    return made;
}

PyObject* py_attend(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments next(given, count);
    const Path* path = next;
    Attention attention;
    attention.batch = next;
    attention.tokens = next;
    attention.kv_heads = next;
    attention.shared = next;
    attention.size = next;
    attention.room = next;
    attention.length = next;
    attention.lengths = attention.places = nullptr;
    attention.keys = side(next);
    attention.values = side(next);
    attention.frequencies = next;
    attention.pairs = next;
    attention.queries = next;
    attention.mixed = next;
    attention.partials = next;
    attention.partials_room = static_cast<size_t>(next.integer());
    return run(next, [&](int threads) { attend(*path, attention, threads); });
}

StepEntry step_entry(Arguments& next) {
    StepEntry step;
    step.hidden_states = next;
    step.normed = next;
    step.q = next;
    step.k = next;
    step.v = next;
    step.queries = next;
    step.mixed = next;
    step.keys = next;
    step.keys_bytes = next.integer();
    step.attended = next;
    step.delta = next;
    step.gate_and_up = next;
    step.gated = next;
    step.scratch = next;
    step.rotation = next;
    step.frequencies = next;
    return step;
}

Shape shape_entry(Arguments& next) {
    Shape shape;
    shape.batch = next;
    shape.tokens = next;
    shape.hidden = next;
    shape.inner = next;
    shape.heads = next;
    shape.kv_heads = next;
    shape.head_size = next;
    shape.pairs = next;
    shape.room = next;
    shape.key_format = static_cast<KVFormat>(next.integer());
    shape.value_format = static_cast<KVFormat>(next.integer());
    shape.dtype = static_cast<Dtype>(next.integer());
    shape.eps = static_cast<float>(next.number());
    shape.theta = next.number();
    return shape;
}

PyObject* py_norm(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments next(given, count);
    const Path* path = next;
    const void *x = next, *weight = next;
    const auto eps = static_cast<float>(next.number());
    const int rows = next, size = next;
    const auto dtype = static_cast<Dtype>(next.integer());
    void* out = next;
    return run(next, [&](int threads) { norm(*path, x, weight, eps, rows, size, dtype, out, threads); });
}

PyObject* py_run_layers(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments next(given, count);
    const Path* path = next;
    const LayerEntry* layers = next;
    const int layer_count = next;
    const Shape shape = shape_entry(next);
    const StepEntry step = step_entry(next);
    const int64_t *lengths = next, *places = next;
    return run(next, [&](int threads) { run_layers(*path, layers, layer_count, shape, step, lengths, places, threads); });
}

PyMethodDef METHODS[] = {
    method("find_path", py_find_path,
           "find_path(name) -> the path's address; 0 where it cannot run here"),
    method("matmul", py_matmul,
           "matmul(path, qweight, scales, qzeros, book, outputs, inputs, bits, group, wide, x, out, "
           "rows, dtype, out dtype, scratch, threads)"),
    method("matmul_dense", py_matmul_dense,
           "matmul_dense(path, weight, outputs, inputs, x, rows, dtype, out, out dtype, threads)"),
    method("attend", py_attend,
           "attend(path, batch, tokens, kv heads, shared, size, room, length, keys' format, "
           "codes, scales, centers, values' format, codes, scales, centers, frequencies, pairs, "
           "queries, mixed, partials, room, threads)"),
    method("norm", py_norm, "norm(path, x, weight, eps, rows, size, dtype, out, threads)"),
    method("run_layers", py_run_layers,
           "run_layers(path, table, layers, *shape, *step, lengths, places, threads): see layers.h"),
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_native", "Kernels of the CPU.", 0, METHODS,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__native() {
    PyObject* module = PyModule_Create(&MODULE);
    if (module && PyModule_AddFunctions(module, QUANTIZE_METHODS) < 0) Py_CLEAR(module);
    return module;
}
