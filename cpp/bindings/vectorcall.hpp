// Calling a target as cheaply as CPython itself does.
#pragma once

#include <pybind11/pybind11.h>

#include <cstring>  // std::memcpy

namespace memguard {

// PyObject_Vectorcall without the trip through the shared library: about 2 ns (measured by the
// suite "breaker" of bench/run.py). Passes nargsf on, PY_VECTORCALL_ARGUMENTS_OFFSET included.
[[nodiscard]] inline PyObject* call_target(PyObject* target, PyObject* const* args,
                                           std::size_t nargsf, PyObject* kwnames) {
    PyTypeObject* const type = Py_TYPE(target);
    if (PyType_HasFeature(type, Py_TPFLAGS_HAVE_VECTORCALL)) [[likely]] {
        vectorcallfunc call = nullptr;
        std::memcpy(&call, reinterpret_cast<char*>(target) + type->tp_vectorcall_offset,
                    sizeof call);
        if (call != nullptr) [[likely]] {
            return call(target, args, nargsf, kwnames);
        }
    }
    return PyObject_Vectorcall(target, args, nargsf, kwnames);
}

}  // namespace memguard
