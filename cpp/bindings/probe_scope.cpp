#include "probe_scope.hpp"

#include "exceptions.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

// The ContextVar holds a chain of links: the probes that the running task or thread is inside of.
// A link is a list: [breaker's id, generation, outer link or None, whether the probe has ended].
// The last is there because the probe may end where the variable cannot be reset: an attempt that
// ends on another thread would else leave its privilege behind. Nothing else changes, so that
// threads without a GIL may read meanwhile: True and False live for ever.
enum LinkItem : Py_ssize_t { kBreakerId, kGeneration, kOuter, kHasEnded, kLinkItems };

bool has_ended(py::handle link) {
    return Py_IsTrue(PyList_GET_ITEM(link.ptr(), kHasEnded)) != 0;
}

// The innermost link that has not ended, or None.
py::object current_link(const ModuleState& state) {
    PyObject* value = nullptr;
    if (PyContextVar_Get(state.probe_scope, Py_None, &value) < 0) {
        throw py::error_already_set();
    }
    auto link = py::reinterpret_steal<py::object>(value);
    while (!link.is_none() && has_ended(link)) {
        link = py::reinterpret_borrow<py::object>(PyList_GET_ITEM(link.ptr(), kOuter));
    }
    return link;
}

}  // namespace

bool inside_probe(const ModuleState& state, const Breaker& breaker, Word word) {
    for (py::object link = current_link(state); !link.is_none();) {
        const auto items = py::reinterpret_borrow<py::list>(link);
        if (!has_ended(link) && items[kBreakerId].cast<std::uint64_t>() == breaker.id() &&
            items[kGeneration].cast<std::uint64_t>() == word.generation()) {
            return true;
        }
        link = items[kOuter];
    }
    return false;
}

PyObject* enter_scope(const ModuleState& state, const Breaker& breaker, Token token) noexcept {
    if (!token.is_probe()) {
        return nullptr;
    }
    try {
        py::list link(Py_ssize_t{kLinkItems});
        link[kBreakerId] = breaker.id();
        link[kGeneration] = token.generation;
        link[kOuter] = current_link(state);
        link[kHasEnded] = false;
        const auto reset =
            py::reinterpret_steal<py::object>(PyContextVar_Set(state.probe_scope, link.ptr()));
        if (!reset) {
            throw py::error_already_set();
        }
        return py::make_tuple(link, reset).release().ptr();
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
    PyList_SetItem(PyTuple_GET_ITEM(scope, 0), kHasEnded, Py_NewRef(Py_True));
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
