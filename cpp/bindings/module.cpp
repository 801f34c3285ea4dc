// The extension module: declares and calls, nothing else.
#include "state.hpp"

namespace py = pybind11;

#if PY_VERSION_HEX < 0x030C0000
// Before 3.12 pybind11 waits for ever for the GIL of the main interpreter when it is imported in
// another one (as mod_wsgi does): refuse in words instead.
#undef PYBIND11_CHECK_PYTHON_VERSION
#define PYBIND11_CHECK_PYTHON_VERSION                                                              \
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {                                   \
        PyErr_SetString(PyExc_ImportError,                                                         \
                        "memguard_native in a sub-interpreter needs CPython 3.12 or newer");       \
        return nullptr;                                                                            \
    }
#endif

PYBIND11_MODULE(_core, m, py::mod_gil_not_used(),
                py::multiple_interpreters::per_interpreter_gil()) {
    m.doc() = "The native core of memguard_native. Use the package's public names instead.";
    m.attr("__version__") = MEMGUARD_VERSION;

    const py::object state_module = memguard::new_state_module();
    auto& state = *static_cast<memguard::ModuleState*>(PyModule_GetState(state_module.ptr()));
    memguard::add_open_error(m, state_module, state);
    memguard::add_trampoline(m, state_module, state);
    memguard::add_probe_scope(m, state_module, state);
    memguard::add_guard(m, state_module, state);
    memguard::add_guarded_coroutine(m, state_module, state);
    memguard::add_guarded_generators(m, state_module, state);
    memguard::add_attempt(m, state_module, state);
    memguard::add_ring(m, state_module);
    memguard::add_request_counter(m, state_module);
    memguard::bind_segment(m);
    memguard::bind_breaker(m, state);
    memguard::bind_signals(m);
    memguard::bind_memory(m);
    memguard::bind_allocators(m);
    memguard::bind_allocation_profile(m);
    memguard::bind_supervision(m);
}
