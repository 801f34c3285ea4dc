// GuardedCoroutine: a coroutine behind a circuit breaker. See stepper.hpp.
#include "stepper.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

PyObject* coroutine_await(PyObject* object) {
    if (as_stepper(object)->stage == Stage::running) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return nullptr;
    }
    return Py_NewRef(object);
}

}  // namespace

void add_guarded_coroutine(py::module_& m, py::handle state_module, ModuleState& state) {
    PyType_Slot slots[] = {
        {Py_tp_traverse, reinterpret_cast<void*>(stepper_traverse)},
        {Py_tp_clear, reinterpret_cast<void*>(stepper_clear)},
        {Py_tp_dealloc, reinterpret_cast<void*>(stepper_dealloc)},
        {Py_tp_iternext, reinterpret_cast<void*>(stepper_iternext)},
        {Py_tp_getattro, reinterpret_cast<void*>(stepper_getattro)},
        {Py_tp_repr, reinterpret_cast<void*>(stepper_repr)},
        {Py_tp_methods, stepper_methods},
        {Py_tp_members, stepper_members},
        {Py_am_await, reinterpret_cast<void*>(coroutine_await)},
        {Py_am_send, reinterpret_cast<void*>(stepper_send)},
        {0, nullptr},
    };
    PyType_Spec spec = {"memguard_native._core.GuardedCoroutine", sizeof(Stepper), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                            Py_TPFLAGS_DISALLOW_INSTANTIATION,
                        slots};
    state.coroutine_type = add_type(m, state_module, spec);
    state.method_throw = PyUnicode_InternFromString("throw");
    state.method_close = PyUnicode_InternFromString("close");
    if (state.method_throw == nullptr || state.method_close == nullptr) {
        throw py::error_already_set();
    }
}

}  // namespace memguard
