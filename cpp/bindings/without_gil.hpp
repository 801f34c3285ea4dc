// Runs work that touches no Python object while other threads of Python run.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>  // std::exception

namespace memguard {

// Not by a destructor: in a daemon thread, taking the GIL back ends the thread once the interpreter
// is finalised, and the unwinding must not meet a noexcept frame.
template <class Work>
auto without_gil(Work&& work) -> decltype(work()) {
    PyThreadState* const state = PyEval_SaveThread();
    try {
        auto result = work();
        PyEval_RestoreThread(state);
        return result;
    } catch (const std::exception&) {  // std::bad_alloc
        PyEval_RestoreThread(state);
        throw;
    }
}

}  // namespace memguard
