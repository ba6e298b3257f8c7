// What Python passes to a function of the extension.
#pragma once
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>

namespace glm4q {

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

// Reads the last argument, how many threads may work, and lets others have Python meanwhile.
template <class Work>
PyObject* run(Arguments& next, const Work& work) {
    const int threads = next;
    if (next.failed()) return nullptr;
    Py_BEGIN_ALLOW_THREADS
    work(threads);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

template <class Function>
PyMethodDef method(const char* name, Function function, const char* text) {
    auto* call = reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
    return {name, call, METH_FASTCALL, text};
}

}  // namespace glm4q
