// MemguardError and CircuitOpenError.
//
// CircuitOpenError keeps the plain layout of BaseException and reads its fields from `args`, so
// that it can be mixed with any exception of a client library, OSErrors included, and pickles by
// itself.
#include <cstdio>  // std::snprintf

#include "exceptions.hpp"
#include "state.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

// Positions in args; the last is None or the tuple below.
enum Field : Py_ssize_t { kName, kRetryAfter, kReason, kState, kDetails, kFields };
enum Detail : Py_ssize_t { kFailureCount, kOpenedAt, kLastError, kCause, kDetail, kDetailFields };

// Borrowed; None if the error was made by hand with fewer arguments.
PyObject* field(PyObject* self, Py_ssize_t index) noexcept {
    PyObject* args = reinterpret_cast<PyBaseExceptionObject*>(self)->args;
    return args != nullptr && index < PyTuple_GET_SIZE(args) ? PyTuple_GET_ITEM(args, index)
                                                             : Py_None;
}

PyObject* detail(PyObject* self, Py_ssize_t index) noexcept {
    PyObject* details = field(self, kDetails);
    const bool known = PyTuple_Check(details) && PyTuple_GET_SIZE(details) == kDetailFields;
    return known ? PyTuple_GET_ITEM(details, index) : Py_None;
}

PyObject* get_field(PyObject* self, void* index) {
    return Py_NewRef(field(self, reinterpret_cast<Py_ssize_t>(index)));
}

PyObject* get_detail(PyObject* self, void* index) {
    return Py_NewRef(detail(self, reinterpret_cast<Py_ssize_t>(index)));
}

// args as given, whatever the other bases of a mixed class would make of them.
int open_error_init(PyObject* self, PyObject* args, PyObject* keywords) {
    if (keywords != nullptr && PyDict_GET_SIZE(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "CircuitOpenError takes no keyword arguments");
        return -1;
    }
    auto* const base = reinterpret_cast<PyBaseExceptionObject*>(self);
    Py_XSETREF(base->args, Py_NewRef(args));
    return 0;
}

// "5 consecutive failures, last: ConnectError", "failure rate reached, last: ConnectError", or what
// a rule or a hand of the user's said.
py::str cause(PyObject* self) {
    if (const auto said = py::reinterpret_borrow<py::object>(detail(self, kDetail));
        !said.is_none()) {
        return py::str(said);
    }
    const auto failures = py::reinterpret_borrow<py::object>(detail(self, kFailureCount));
    const auto last = py::reinterpret_borrow<py::object>(detail(self, kLastError));
    const auto rule = py::reinterpret_borrow<py::object>(detail(self, kCause));
    py::str text = failures.equal(py::int_(1))
                       ? py::str("1 consecutive failure")
                       : py::str("{} consecutive failures").format(failures);
    if (rule.equal(py::str("failure_rate"))) {
        text = "failure rate reached";
    } else if (rule.equal(py::str("slow_rate"))) {
        text = "slow-call rate reached";
    } else if (last.is_none()) {
        return failures.equal(py::int_(0)) ? py::str("opened by hand") : text;
    }
    if (last.is_none()) {
        return text;
    }
    return py::str("{}, last: {}").format(text, py::reinterpret_borrow<py::tuple>(last)[0]);
}

PyObject* open_error_str(PyObject* self) {
    if (field(self, kState) == Py_None) {
        return reinterpret_cast<PyTypeObject*>(PyExc_BaseException)->tp_str(self);
    }
    try {
        const double seconds = PyFloat_AsDouble(field(self, kRetryAfter));
        if (seconds == -1.0 && PyErr_Occurred() != nullptr) {
            throw py::error_already_set();
        }
        char wait[32];
        std::snprintf(wait, sizeof wait, "%.1f", seconds < 0.1 ? 0.1 : seconds);
        const auto state = py::reinterpret_borrow<py::object>(field(self, kState));
        const py::str name = py::repr(field(self, kName));
        if (state.equal(py::str("forced_open"))) {
            const auto said = py::reinterpret_borrow<py::object>(detail(self, kDetail));
            return py::str("circuit {} is forced open by hand{}; try again in {} s")
                .format(name, said.is_none() ? py::str("") : py::str(" ({})").format(said), wait)
                .release()
                .ptr();
        }
        const py::str text =
            state.equal(py::str("open"))
                ? py::str("circuit {} is open; next probe in {} s").format(name, wait)
                : py::str("circuit {} is half-open and probing; try again in {} s")
                      .format(name, wait);
        if (field(self, kDetails) == Py_None) {
            return py::object(text).release().ptr();
        }
        return py::str("{} ({})").format(text, cause(self)).release().ptr();
    } catch (py::error_already_set& error) {
        error.restore();
    }
    return nullptr;
}

void* closure(Py_ssize_t index) {
    return reinterpret_cast<void*>(index);
}

PyGetSetDef open_error_fields[] = {
    {"name", get_field, nullptr, "The breaker's name.", closure(kName)},
    {"retry_after", get_field, nullptr, "Seconds until a call may be admitted again, > 0.",
     closure(kRetryAfter)},
    {"reason", get_field, nullptr,
     "Why this call was rejected: \"open\", \"probing\" while a probe runs, or \"forced_open\".",
     closure(kReason)},
    {"state", get_field, nullptr,
     "The breaker's state: \"open\", \"half_open\" or \"forced_open\".", closure(kState)},
    {"failure_count", get_detail, nullptr, "Failures in a row when the circuit opened.",
     closure(kFailureCount)},
    {"opened_at", get_detail, nullptr, "When it opened: seconds since the epoch.",
     closure(kOpenedAt)},
    {"last_error", get_detail, nullptr,
     "(type name, text) of the exception that opened it; None if opened by hand.",
     closure(kLastError)},
    {"cause", get_detail, nullptr, "Which rule opened it, as the reason of the event says.",
     closure(kCause)},
    {"detail", get_detail, nullptr,
     "What a rule of the user's said, or the reason given by hand; else None.", closure(kDetail)},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

}  // namespace

void add_open_error(py::module_& m, py::handle state_module, ModuleState& state) {
    state.error_type = PyErr_NewExceptionWithDoc(
        "memguard_native.errors.MemguardError",
        "Base of every error that this package raises on purpose.", nullptr, nullptr);
    if (state.error_type == nullptr) {
        throw py::error_already_set();
    }
    m.attr("MemguardError") = py::handle(state.error_type);

    const char* doc = "A call was rejected because its circuit is open. A new object each time; it "
                      "holds no frame and no exception.";
    PyType_Slot slots[] = {
        {Py_tp_doc, const_cast<char*>(doc)},
        {Py_tp_init, reinterpret_cast<void*>(open_error_init)},
        {Py_tp_str, reinterpret_cast<void*>(open_error_str)},
        {Py_tp_getset, open_error_fields},
        {0, nullptr},
    };
    PyType_Spec spec = {"memguard_native.errors.CircuitOpenError", 0, 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};
    state.open_error_type = add_type(m, state_module, spec, state.error_type);

    state.state_open = PyUnicode_InternFromString("open");
    state.state_half_open = PyUnicode_InternFromString("half_open");
    state.state_forced_open = PyUnicode_InternFromString("forced_open");
    state.reason_probing = PyUnicode_InternFromString("probing");
    if (state.state_open == nullptr || state.state_half_open == nullptr ||
        state.state_forced_open == nullptr || state.reason_probing == nullptr) {
        throw py::error_already_set();
    }
}

}  // namespace memguard
