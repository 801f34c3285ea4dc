#include "state.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

// Calls `visit` on every reference in the state.
template <class Visit>
int for_each_reference(ModuleState& state, Visit visit) {
    const auto object = [](auto*& reference) { return reinterpret_cast<PyObject**>(&reference); };
    PyObject** const references[] = {
        object(state.error_type),      object(state.open_error_type),
        object(state.guard_type),      object(state.coroutine_type),
        object(state.generator_type),  object(state.async_generator_type),
        object(state.async_step_type), object(state.attempt_type),
        object(state.probe_link_type), object(state.breaker_type),
        object(state.trampoline_type), object(state.cleared_function),
        object(state.probe_scope),     object(state.state_open),
        object(state.state_half_open), object(state.state_forced_open),
        object(state.reason_probing),  object(state.method_throw),
        object(state.method_close),    object(state.method_anext),
        object(state.method_asend),    object(state.method_athrow),
        object(state.method_aclose),
    };
    static_assert(sizeof references / sizeof *references == sizeof(ModuleState) / sizeof(void*));
    for (PyObject** reference : references) {
        if (const int result = visit(*reference); result != 0) {
            return result;
        }
    }
    return 0;
}

int state_traverse(PyObject* module, visitproc visit, void* arg) {
    auto& state = *static_cast<ModuleState*>(PyModule_GetState(module));
    return for_each_reference(state, [&](PyObject*& reference) {
        Py_VISIT(reference);
        return 0;
    });
}

int state_clear(PyObject* module) {
    auto& state = *static_cast<ModuleState*>(PyModule_GetState(module));
    return for_each_reference(state, [](PyObject*& reference) {
        Py_CLEAR(reference);
        return 0;
    });
}

void state_free(void* module) {
    state_clear(static_cast<PyObject*>(module));
}

// Holds no object, so one for all interpreters is right.
PyModuleDef state_module_def = {
    PyModuleDef_HEAD_INIT,
    "memguard_native._core",
    nullptr,
    sizeof(ModuleState),
    nullptr,
    nullptr,
    state_traverse,
    state_clear,
    state_free,
};

}  // namespace

py::object new_state_module() {
    auto module = py::reinterpret_steal<py::object>(PyModule_Create(&state_module_def));
    if (!module) {
        throw py::error_already_set();
    }
    return module;
}

PyTypeObject* add_type(py::module_& m, py::handle state_module, PyType_Spec& spec,
                       PyObject* bases) {
    PyObject* type = PyType_FromModuleAndSpec(state_module.ptr(), &spec, bases);
    if (type == nullptr || PyModule_AddType(m.ptr(), reinterpret_cast<PyTypeObject*>(type)) < 0) {
        throw py::error_already_set();
    }
    return reinterpret_cast<PyTypeObject*>(type);
}

}  // namespace memguard
