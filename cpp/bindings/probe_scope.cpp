#include "probe_scope.hpp"

#include <atomic>  // std::atomic

#include "exceptions.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

// The ContextVar holds the innermost of a chain of links: the probes that the running task or
// thread is inside of. A link tells by itself that its probe has ended, because that may happen
// where the variable cannot be reset: an attempt that ends on another thread would else leave its
// privilege behind. It is no list: the garbage collector clears those, and may do so before the
// attempt that holds it ends and puts an outer link back into the variable.
struct Link {
    PyObject_HEAD
    std::uint64_t breaker_id;
    std::uint64_t generation;
    PyObject* outer;  // owned; null for the outermost
    std::atomic<bool> has_ended;
};

Link* as_link(PyObject* self) noexcept {
    return reinterpret_cast<Link*>(self);
}

void link_dealloc(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    Py_XDECREF(as_link(self)->outer);
    type->tp_free(self);
    Py_DECREF(type);
}

bool has_ended(const Link* link) noexcept {
    // acquire: pairs with the release store in leave_scope()
    return link->has_ended.load(std::memory_order_acquire);
}

// The innermost link, which keeps those that it is in; null if there is none.
py::object innermost(const ModuleState& state) {
    PyObject* value = nullptr;
    if (PyContextVar_Get(state.probe_scope, nullptr, &value) < 0) {
        throw py::error_already_set();
    }
    return py::reinterpret_steal<py::object>(value);
}

}  // namespace

void add_probe_scope(py::module_& m, py::handle state_module, ModuleState& state) {
    PyType_Slot slots[] = {
        {Py_tp_dealloc, reinterpret_cast<void*>(link_dealloc)},
        {0, nullptr},
    };
    PyType_Spec spec = {
        "memguard_native._core.ProbeLink", sizeof(Link), 0,
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
    state.probe_link_type = add_type(m, state_module, spec);
    state.probe_scope = PyContextVar_New("memguard_probe_scope", nullptr);
    if (state.probe_scope == nullptr) {
        throw py::error_already_set();
    }
}

bool inside_probe(const ModuleState& state, const Breaker& breaker, Word word) {
    const py::object kept = innermost(state);
    for (const Link* link = as_link(kept.ptr()); link != nullptr; link = as_link(link->outer)) {
        if (!has_ended(link) && link->breaker_id == breaker.id() &&
            link->generation == word.generation()) {
            return true;
        }
    }
    return false;
}

PyObject* enter_scope(const ModuleState& state, const Breaker& breaker, Token token) noexcept {
    if (!token.is_probe()) {
        return nullptr;
    }
    try {
        const py::object kept = innermost(state);
        Link* outer = as_link(kept.ptr());
        while (outer != nullptr && has_ended(outer)) {
            outer = as_link(outer->outer);
        }
        const auto made = py::reinterpret_steal<py::object>(
            state.probe_link_type->tp_alloc(state.probe_link_type, 0));
        if (!made) {
            throw py::error_already_set();
        }
        Link* const link = as_link(made.ptr());
        link->breaker_id = breaker.id();
        link->generation = token.generation;
        link->outer = Py_XNewRef(reinterpret_cast<PyObject*>(outer));
        const auto reset =
            py::reinterpret_steal<py::object>(PyContextVar_Set(state.probe_scope, made.ptr()));
        if (!reset) {
            throw py::error_already_set();
        }
        return py::make_tuple(made, reset).release().ptr();
    } catch (py::error_already_set& error) {
        // Without the mark calls inside this probe are rejected: safe, if strict.
        error.discard_as_unraisable("memguard_native: entering a probe");
        return nullptr;
    }
}

void leave_scope(const ModuleState& state, PyObject*& scope) noexcept {
    if (scope == nullptr) {
        return;
    }
    PyObject* const exception = PyErr_Occurred() != nullptr ? take_exception() : nullptr;
    // release: pairs with the acquire load in has_ended()
    as_link(PyTuple_GET_ITEM(scope, 0))->has_ended.store(true, std::memory_order_release);
    // Fails in another context than it was set in: there the ended link stays, and means nothing.
    if (PyContextVar_Reset(state.probe_scope, PyTuple_GET_ITEM(scope, 1)) < 0) {
        PyErr_Clear();
    }
    Py_CLEAR(scope);
    if (exception != nullptr) {
        put_exception(exception);
    }
}

}  // namespace memguard
