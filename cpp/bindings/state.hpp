// The module's state: everything that must not be a C++ static, because each interpreter has its
// own.
//
// pybind11 gives its modules no state. So the raw types belong to a second, hidden module object
// that has one; PyType_GetModuleState reaches it from any of their instances.
#pragma once

#include <pybind11/pybind11.h>
#include <structmember.h>  // PyMemberDef and its codes, before CPython 3.12

namespace memguard {

struct ModuleState {
    PyObject* error_type;                // MemguardError
    PyTypeObject* open_error_type;       // CircuitOpenError
    PyTypeObject* guard_type;            // Guard
    PyTypeObject* coroutine_type;        // GuardedCoroutine
    PyTypeObject* generator_type;        // GuardedGenerator
    PyTypeObject* async_generator_type;  // GuardedAsyncGenerator
    PyTypeObject* async_step_type;       // AsyncGeneratorStep
    PyTypeObject* attempt_type;          // Attempt
    PyTypeObject* probe_link_type;       // ProbeLink
    PyTypeObject* breaker_type;          // Breaker
    PyTypeObject* trampoline_type;       // Trampoline
    PyObject* cleared_function;   // what a guard calls after the garbage collector cleared it
    PyObject* probe_scope;        // ContextVar: the probes that the running code is part of
    PyObject* state_open;         // interned "open"
    PyObject* state_half_open;    // interned "half_open"
    PyObject* state_forced_open;  // interned "forced_open"
    PyObject* reason_probing;     // interned "probing"
    PyObject* method_throw;       // interned names of the coroutine and generator protocols
    PyObject* method_close;
    PyObject* method_anext;
    PyObject* method_asend;
    PyObject* method_athrow;
    PyObject* method_aclose;
};

// A new hidden module whose state is empty. Raises py::error_already_set.
pybind11::object new_state_module();

// The state behind any instance of our raw types.
[[nodiscard]] inline ModuleState& state_of(PyObject* instance) noexcept {
    return *static_cast<ModuleState*>(PyType_GetModuleState(Py_TYPE(instance)));
}

// A heap type that belongs to the hidden module, also put into `m` under its own name.
PyTypeObject* add_type(pybind11::module_& m, pybind11::handle state_module, PyType_Spec& spec,
                       PyObject* bases = nullptr);

// Each makes its types and puts them into the module and the state.
void add_open_error(pybind11::module_& m, pybind11::handle state_module, ModuleState& state);
void add_probe_scope(pybind11::module_& m, pybind11::handle state_module, ModuleState& state);
void add_guard(pybind11::module_& m, pybind11::handle state_module, ModuleState& state);
void add_guarded_coroutine(pybind11::module_& m, pybind11::handle state_module, ModuleState& state);
void add_guarded_generators(pybind11::module_& m, pybind11::handle state_module,
                            ModuleState& state);
void add_attempt(pybind11::module_& m, pybind11::handle state_module, ModuleState& state);
void add_trampoline(pybind11::module_& m, pybind11::handle state_module, ModuleState& state);
void add_ring(pybind11::module_& m, pybind11::handle state_module);
void add_request_counter(pybind11::module_& m, pybind11::handle state_module);

// The cold API, bound by pybind11.
void bind_breaker(pybind11::module_& m, ModuleState& state);
void bind_signals(pybind11::module_& m);
void bind_memory(pybind11::module_& m);
void bind_allocators(pybind11::module_& m);
void bind_allocation_profile(pybind11::module_& m);
void bind_segment(pybind11::module_& m);
void bind_supervision(pybind11::module_& m);

}  // namespace memguard
