// glm4q._native: the kernels as functions of addresses and sizes. Callers see to their being right.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "linear.h"

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
    Weight weight;
    weight.qweight = next;
    weight.scales = next;
    weight.qzeros = next;
    weight.outputs = next;
    weight.inputs = next;
    weight.bits = next;
    weight.group = next;
    const void* x = next;
    void* out = next;
    const int rows = next;
    const auto dtype = static_cast<Dtype>(next.integer());
    void* scratch = next;
    const int threads = next;
    if (next.failed()) return nullptr;
    Py_BEGIN_ALLOW_THREADS
    matmul(*path, weight, x, out, rows, dtype, scratch, threads);
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
     "scratch, threads)"},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_native", "Kernels of the CPU.", 0, METHODS,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__native() { return PyModule_Create(&MODULE); }
