#include "asking.hpp"

#include <algorithm>    // std::min
#include <string_view>  // std::string_view

#include "exceptions.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

// The answer, or null where the callable raises, which our Python prevents.
template <class... Arguments>
py::object ask(const py::object& callable, Arguments... arguments) noexcept {
    const py::object kept = callable;  // the call may clear what holds it
    PyObject* const given[] = {arguments...};
    PyObject* const answer = PyObject_Vectorcall(kept.ptr(), given, sizeof...(arguments), nullptr);
    if (answer == nullptr) {
        hand_over(kept.ptr());
    }
    return py::reinterpret_steal<py::object>(answer);
}

Verdict ask_verdict(const py::object& callable, PyObject* argument, Verdict otherwise) noexcept {
    const py::object answer = ask(callable, argument);
    const long code = answer ? PyLong_AsLong(answer.ptr()) : -1;
    if (code < 0 || code > static_cast<long>(Verdict::neutral)) {
        PyErr_Clear();
        return otherwise;
    }
    return static_cast<Verdict>(code);
}

AskedWait to_wait(const Policy& policy, const py::object& answer, bool is_backoff) noexcept {
    const double seconds = answer && !answer.is_none() ? PyFloat_AsDouble(answer.ptr()) : -1.0;
    if (!(seconds >= 0.0)) {
        PyErr_Clear();
        return {};
    }
    const auto longest = static_cast<double>(policy.config().max_reset_timeout_ns);
    return {static_cast<std::int64_t>(std::min(seconds * kNsPerSecond, longest)), is_backoff};
}

PyObject* none_if_null(PyObject* object) noexcept {
    return object != nullptr ? object : Py_None;
}

// By name, because asyncio is Python and may never have been imported.
bool is_cancelled_error(PyObject* exception) noexcept {
    for (const PyTypeObject* type = Py_TYPE(exception); type != nullptr; type = type->tp_base) {
        if (std::string_view{type->tp_name} == "CancelledError") {
            return true;
        }
    }
    return false;
}

int raise_again(void* exception) {
    put_exception(static_cast<PyObject*>(exception));
    return -1;
}

bool is_main_thread() {
    const auto threading = py::module_::import("threading");
    return threading.attr("get_ident")().equal(threading.attr("main_thread")().attr("ident"));
}

}  // namespace

void hand_over(PyObject* context) noexcept {
    if (PyErr_ExceptionMatches(PyExc_Exception) != 0) {
        PyErr_WriteUnraisable(context);
        return;
    }
    PyObject* const exception = take_exception();
    bool is_handed_over = false;
    try {
        is_handed_over = is_main_thread() && Py_AddPendingCall(raise_again, exception) == 0;
    } catch (py::error_already_set& error) {
        error.discard_as_unraisable("memguard_native: looking for the main thread");
    }
    if (!is_handed_over) {
        put_exception(exception);
        PyErr_WriteUnraisable(context);
    }
}

Verdict classify(const ModuleState& state, const Policy& policy, PyObject* exception,
                 bool& is_cancellation) noexcept {
    if (is_instance(exception, PyExc_StopIteration) ||
        is_instance(exception, PyExc_StopAsyncIteration)) {
        return Verdict::success;  // the iterator protocol, not a failure
    }
    const bool is_exception = is_instance(exception, PyExc_Exception);
    is_cancellation = !is_exception && is_cancelled_error(exception);
    // Our own shortage of stack or memory says nothing about the dependency, nor does another
    // circuit that is open; nor do cancellation, Ctrl-C and exit.
    const bool counts = is_exception || policy.outcomes.count_base_exceptions;
    if (!counts || is_instance(exception, PyExc_RecursionError) ||
        is_instance(exception, PyExc_MemoryError) ||
        PyType_IsSubtype(Py_TYPE(exception), state.open_error_type) != 0) {
        return Verdict::neutral;
    }
    return policy.outcomes.classify
               ? ask_verdict(policy.outcomes.classify, exception, Verdict::failure)
               : Verdict::failure;
}

Verdict classify_result(const Policy& policy, PyObject* result) noexcept {
    return policy.outcomes.classify_result
               ? ask_verdict(policy.outcomes.classify_result, result, Verdict::success)
               : Verdict::success;
}

AskedWait ask_reopen_after(const Policy& policy, PyObject* exception_or_result) noexcept {
    if (!policy.outcomes.reopen_after) {
        return {};
    }
    return to_wait(policy, ask(policy.outcomes.reopen_after, exception_or_result), false);
}

AskedWait ask_backoff(const Policy& policy, std::uint32_t attempt,
                      PyObject* exception_or_result) noexcept {
    if (!policy.outcomes.backoff) {
        return {};
    }
    const auto number = py::reinterpret_steal<py::object>(PyLong_FromUnsignedLong(attempt));
    if (!number) {
        PyErr_Clear();
        return {};
    }
    PyObject* const outcome = none_if_null(exception_or_result);
    return to_wait(policy, ask(policy.outcomes.backoff, number.ptr(), outcome), true);
}

py::object ask_rule(const py::object& rule, py::handle breaker,
                    PyObject* exception_or_result) noexcept {
    if (!rule) {
        return {};
    }
    py::object why = ask(rule, breaker.ptr(), none_if_null(exception_or_result));
    return why && !why.is_none() ? why : py::object{};
}

}  // namespace memguard
