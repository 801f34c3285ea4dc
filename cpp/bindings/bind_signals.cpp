// What a sample holds besides the kernel's figures: load, CPython's arenas, malloc by its name.
#include <pybind11/stl.h>  // std::optional

#include <cmath>     // std::isfinite
#include <memory>    // std::shared_ptr
#include <optional>  // std::optional

#include "arenas.hpp"
#include "memguard/load_gauge.hpp"
#include "state.hpp"

#if defined(__linux__)
#include "memguard/allocator_linux.hpp"
#endif

namespace py = pybind11;

namespace memguard {
namespace {

double finite(double value) {
    if (!std::isfinite(value)) {
        throw py::value_error("a load must be a finite number");
    }
    return value;
}

const char* allocator_name() {
#if defined(__linux__)
    return Allocator::of_this_process().name();
#else
    return "unknown";
#endif
}

}  // namespace

void bind_signals(py::module_& m) {
    count_python_arenas();
    m.def(
        "python_arena_bytes", [] { return python_arenas().bytes(); },
        "Bytes in the arenas of CPython's allocator of small objects; None: not counted here.");
    m.def("allocator_name", &allocator_name,
          "The malloc of this process: glibc, jemalloc, mimalloc or unknown.");

    py::class_<LoadGauge, std::shared_ptr<LoadGauge>>(m, "LoadGauge", "How much is in flight now.")
        .def(py::init<>())
        .def(
            "set", [](LoadGauge& gauge, double value) { gauge.set(finite(value)); },
            py::arg("value"), "So much is in flight.")
        .def(
            "add", [](LoadGauge& gauge, double by) { gauge.add(finite(by)); }, py::arg("by"),
            "So much more is in flight, or less; from 0 if nothing was set.")
        .def_property_readonly("value", &LoadGauge::value, "None until something was set.");
}

}  // namespace memguard
