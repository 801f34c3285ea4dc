// What can be asked of the allocators of this process, for Python.
#include <pybind11/stl.h>  // std::optional

#include "memguard/allocator_trim.hpp"
#include "state.hpp"
#include "without_gil.hpp"

namespace py = pybind11;

namespace memguard {

void bind_allocators(py::module_& m) {
    m.def(
        "malloc_trim",
        [] { return without_gil([] { return trim_allocators(); }); },  // it takes milliseconds
        "Ask the allocators to give free memory back: whether they did; None: no such allocator.");
}

}  // namespace memguard
