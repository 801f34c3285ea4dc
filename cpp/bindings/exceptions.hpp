// The raised exception as one object, on every CPython: 3.12 made it so, 3.11 has three parts.
#pragma once

#include <pybind11/pybind11.h>

namespace memguard {

// Takes the raised exception away (a new reference).
[[nodiscard]] inline PyObject* take_exception() noexcept {
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject* type = nullptr;
    PyObject* value = nullptr;
    PyObject* traceback = nullptr;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != nullptr) {
        PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

// Raises this very object (steals the reference). It gets no __context__, so it pins no frame.
inline void put_exception(PyObject* exception) noexcept {
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exception);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(exception)), exception, PyException_GetTraceback(exception));
#endif
}

[[nodiscard]] inline bool is_instance(PyObject* object, PyObject* type) noexcept {
    return PyType_IsSubtype(Py_TYPE(object), reinterpret_cast<PyTypeObject*>(type)) != 0;
}

}  // namespace memguard
