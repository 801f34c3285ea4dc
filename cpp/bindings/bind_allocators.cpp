// What can be asked of the allocators of this process, for Python.
#include <pybind11/stl.h>  // std::optional

#include "memguard/allocator_trim.hpp"
#include "state.hpp"

namespace py = pybind11;

namespace memguard {

void bind_allocators(py::module_& m) {
    m.def(
        "malloc_trim",
        [] {
            PyThreadState* const state = PyEval_SaveThread();  // it takes milliseconds
            const auto given_back = trim_allocators();
            PyEval_RestoreThread(state);
            return given_back;
        },
        "Ask the allocators to give free memory back: whether they did; None: no such allocator.");
}

}  // namespace memguard
