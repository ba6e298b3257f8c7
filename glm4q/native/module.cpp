// glm4q._native: the kernels as functions of addresses and sizes. Callers see to their being right.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "layers.h"
#include "path.h"

namespace {

using namespace glm4q;

// Integers from a call's arguments. Whoever asks for more than there are, or for what is none,
// gets 0, and `failed` says so.
class Arguments {
public:
    Arguments(PyObject* const* given, Py_ssize_t count) : given_(given), count_(count) {}

    long long integer() {
        if (next_ >= count_) {
            PyErr_SetString(PyExc_TypeError, "too few arguments");
            next_++;
            return 0;
        }
        return PyLong_AsLongLong(given_[next_++]);
    }
    double number() {
        const bool there = next_ < count_;
        return there ? PyFloat_AsDouble(given_[next_++]) : static_cast<double>(integer());
    }
    operator int() { return static_cast<int>(integer()); }
    template <class T>
    operator T*() {
        return reinterpret_cast<T*>(static_cast<intptr_t>(integer()));
    }

    bool failed() {
        if (!PyErr_Occurred() && next_ < count_)
            PyErr_SetString(PyExc_TypeError, "too many arguments");
        return PyErr_Occurred() != nullptr;
    }

private:
    PyObject* const* given_;
    Py_ssize_t count_, next_ = 0;
};

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
    product.weight.outputs = next;
    product.weight.inputs = next;
    product.weight.bits = next;
    product.weight.group = next;
    product.bias = nullptr;
    const void* x = next;
    product.out = next;
    const int rows = next;
    const auto dtype = static_cast<Dtype>(next.integer());
    product.out_dtype = static_cast<Dtype>(next.integer());
    void* scratch = next;
    const int threads = next;
    if (next.failed()) return nullptr;
    Py_BEGIN_ALLOW_THREADS
    matmul(*path, &product, 1, x, rows, dtype, scratch, threads);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyObject* py_matmul_dense(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments next(given, count);
    const Path* path = next;
    const uint16_t* weight = next;
    const int outputs = next, inputs = next;
    const void* x = next;
    const auto dtype = static_cast<Dtype>(next.integer());
    void* out = next;
    const auto out_dtype = static_cast<Dtype>(next.integer());
    const int threads = next;
    if (next.failed()) return nullptr;
    Py_BEGIN_ALLOW_THREADS
    matmul_dense(*path, weight, outputs, inputs, x, dtype, out, out_dtype, threads);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

Side side(Arguments& next) {
    Side made;
    made.format = static_cast<KVFormat>(next.integer());
    made.codes = next;
    made.scales = next;
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
    attention.lengths = next;
    attention.keys = side(next);
    attention.values = side(next);
    attention.queries = next;
    attention.mixed = next;
    attention.partials = next;
    attention.partials_room = static_cast<size_t>(next.integer());
    const int threads = next;
    if (next.failed()) return nullptr;
    Py_BEGIN_ALLOW_THREADS
    attend(*path, attention, threads);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
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
    return shape;
}

PyObject* py_run_layers(PyObject*, PyObject* const* given, Py_ssize_t count) {
    Arguments next(given, count);
    const Path* path = next;
    const LayerEntry* layers = next;
    const int layer_count = next;
    const Shape shape = shape_entry(next);
    const StepEntry step = step_entry(next);
    const int cached = next;
    const int64_t* lengths = next;
    const int threads = next;
    if (next.failed()) return nullptr;
    Py_BEGIN_ALLOW_THREADS
    run_layers(*path, layers, layer_count, shape, step, cached, lengths, threads);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

template <class Function>
PyCFunction fast(Function function) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef METHODS[] = {
    {"find_path", fast(py_find_path), METH_FASTCALL,
     "find_path(name) -> the path's address; 0 where it cannot run here"},
    {"matmul", fast(py_matmul), METH_FASTCALL,
     "matmul(path, qweight, scales, qzeros, outputs, inputs, bits, group, x, out, rows, dtype, "
     "out dtype, scratch, threads)"},
    {"matmul_dense", fast(py_matmul_dense), METH_FASTCALL,
     "matmul_dense(path, weight, outputs, inputs, x, dtype, out, out dtype, threads)"},
    {"attend", fast(py_attend), METH_FASTCALL,
     "attend(path, batch, tokens, kv heads, shared, size, room, length, lengths, keys' format, "
     "codes, scales, values' format, codes, scales, queries, mixed, partials, room, threads)"},
    {"run_layers", fast(py_run_layers), METH_FASTCALL,
     "run_layers(path, table, layers, *shape, *step, cached, lengths, threads): see layers.h"},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_native", "Kernels of the CPU.", 0, METHODS,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__native() { return PyModule_Create(&MODULE); }
