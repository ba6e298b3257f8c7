// Reads what Python passes to a function of the extension.
#pragma once
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "instruction_set.h"

namespace glm4q {

// The bytes of a Python object that offers a buffer: a ctypes structure, an array.
class Bytes {
public:
    explicit Bytes(PyObject* object) {
        valid_ = PyObject_GetBuffer(object, &view_, PyBUF_SIMPLE) == 0;
    }
    ~Bytes() {
        if (valid_) PyBuffer_Release(&view_);
    }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;

    bool valid() const { return valid_; }
    size_t size() const { return static_cast<size_t>(view_.len); }
    const void* data() const { return view_.buf; }

private:
    Py_buffer view_;
    bool valid_;
};

constexpr int LARGEST_NUMBER = 1 << 26;

// The arguments of one call, read in order. After the first mistake a Python exception is set, all
// that is read is empty, and `failed` is true.
class Arguments {
public:
    Arguments(const char* function, PyObject* const* given, Py_ssize_t count, int expected)
        : function_(function), given_(given) {
        if (count != expected)
            fail(PyErr_Format(PyExc_TypeError, "%s takes %d arguments, not %zd", function, expected,
                              count));
    }

    bool failed() const { return failed_; }

    // Records are copied, so that another thread of Python cannot change them during the call.
    template <class Record>
    Record record() {
        Record record = {};
        const std::vector<Record> records = array<Record>();
        if (records.size() == 1)
            record = records[0];
        else if (!failed_)
            fail(PyErr_Format(PyExc_ValueError, "%s takes one record of %zu bytes, not %zu",
                              function_, sizeof(Record), records.size() * sizeof(Record)));
        return record;
    }

    template <class Item>
    std::vector<Item> array() {
        std::vector<Item> items;
        PyObject* object = next();
        if (!object) return items;
        const Bytes bytes(object);
        if (!bytes.valid()) {
            fail(nullptr);
        } else if (bytes.size() == 0 || bytes.size() % sizeof(Item)) {
            fail(PyErr_Format(PyExc_ValueError, "%s takes records of %zu bytes, not %zu bytes",
                              function_, sizeof(Item), bytes.size()));
        } else {
            items.resize(bytes.size() / sizeof(Item));
            std::memcpy(static_cast<void*>(items.data()), bytes.data(), bytes.size());
        }
        return items;
    }

    int integer() {
        PyObject* object = next();
        if (!object) return 0;
        const long long number = PyLong_AsLongLong(object);
        if (number == -1 && PyErr_Occurred()) return fail(nullptr), 0;
        if (number < 1 || number > LARGEST_NUMBER)
            return fail(PyErr_Format(PyExc_ValueError, "%s takes numbers from 1 to %d, not %lld",
                                     function_, LARGEST_NUMBER, number)), 0;
        return static_cast<int>(number);
    }

    const InstructionSet* instruction_set() {
        const int number = integer();
        if (failed_) return nullptr;
        const InstructionSet* set = instruction_set_of(number);
        if (!set)
            fail(PyErr_Format(PyExc_ValueError, "%s: this machine has no instruction set %d",
                              function_, number));
        return set;
    }

    // Sets a ValueError if there is a fault.
    void check(const char* fault) {
        if (!failed_ && fault)
            fail(PyErr_Format(PyExc_ValueError, "%s: %s", function_, fault));
    }

private:
    PyObject* next() { return failed_ ? nullptr : given_[next_++]; }
    void fail(PyObject*) { failed_ = true; }

    const char* function_;
    PyObject* const* given_;
    int next_ = 0;
    bool failed_ = false;
};

// Lets other threads of Python go on meanwhile.
template <class Work>
PyObject* without_python(const Work& work) {
    Py_BEGIN_ALLOW_THREADS
    work();
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

// One record between the instruction set and the number of threads: what most functions take.
template <class Record, class Work>
PyObject* call_with(const char* function, PyObject* const* given, Py_ssize_t count,
                    const Work& work) {
    Arguments arguments(function, given, count, 3);
    const InstructionSet* set = arguments.instruction_set();
    const Record record = arguments.record<Record>();
    const int threads = arguments.integer();
    if (!arguments.failed()) arguments.check(fault(record));
    if (arguments.failed()) return nullptr;
    return without_python([&] { work(*set, record, threads); });
}

template <class Function>
PyMethodDef method(const char* name, Function function, const char* text) {
    auto* call = reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
    return {name, call, METH_FASTCALL, text};
}

}  // namespace glm4q
