// RequestCounter(gauge) for Python: begin() and end() are called by every request of a service, so
// they are METH calls and not pybind11's, which take ten times as long.
#include <memory>  // std::unique_ptr
#include <new>     // std::nothrow

#include "memguard/request_counter.hpp"
#include "state.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

struct RequestCounterObject {
    PyObject_HEAD
    RequestCounter* counter;
};

RequestCounter& counter_of(PyObject* self) noexcept {
    return *reinterpret_cast<RequestCounterObject*>(self)->counter;
}

PyObject* counter_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
    PyObject* given = nullptr;
    static const char* const names[] = {"gauge", nullptr};
    if (PyArg_ParseTupleAndKeywords(args, keywords, "O:RequestCounter", const_cast<char**>(names),
                                    &given) == 0) {
        return nullptr;
    }
    std::shared_ptr<LoadGauge> gauge;
    try {
        gauge = py::cast<std::shared_ptr<LoadGauge>>(py::handle{given});
    } catch (const py::cast_error&) {
    }
    if (gauge == nullptr) {
        return PyErr_Format(PyExc_TypeError, "gauge must be a LoadGauge, got %R", given);
    }
    std::unique_ptr<RequestCounter> counter{new (std::nothrow) RequestCounter{std::move(gauge)}};
    if (counter == nullptr) {
        return PyErr_NoMemory();
    }
    auto* const self = reinterpret_cast<RequestCounterObject*>(type->tp_alloc(type, 0));
    if (self != nullptr) {
        self->counter = counter.release();
    }
    return reinterpret_cast<PyObject*>(self);
}

void counter_dealloc(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    delete reinterpret_cast<RequestCounterObject*>(self)->counter;
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject* counter_begin(PyObject* self, PyObject*) {
    return PyLong_FromUnsignedLongLong(counter_of(self).begin());
}

PyObject* counter_end(PyObject* self, PyObject* begun) {
    const unsigned long long number = PyLong_AsUnsignedLongLong(begun);
    if (PyErr_Occurred() != nullptr) {
        return nullptr;
    }
    counter_of(self).end(number);
    Py_RETURN_NONE;
}

PyObject* counter_add(PyObject* self, PyObject* count) {
    const unsigned long long number = PyLong_AsUnsignedLongLong(count);
    if (PyErr_Occurred() != nullptr) {
        return nullptr;
    }
    counter_of(self).add(number);
    Py_RETURN_NONE;
}

PyObject* counter_reset(PyObject* self, PyObject*) {
    counter_of(self).reset();
    Py_RETURN_NONE;
}

PyObject* counter_value(PyObject* self, void*) {
    const auto count = counter_of(self).count();
    if (!count) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLongLong(*count);
}

PyObject* counter_ended_ns(PyObject* self, void*) {
    return PyLong_FromLongLong(counter_of(self).ended_ns());
}

PyMethodDef counter_methods[] = {
    {"begin", counter_begin, METH_NOARGS,
     "begin($self, /)\n--\n\nA request begins; the number is for its end()."},
    {"end", counter_end, METH_O,
     "end($self, begun, /)\n--\n\nA request ends; nothing in a process forked since."},
    {"add", counter_add, METH_O, "add($self, count, /)\n--\n\nSo many more were served."},
    {"reset", counter_reset, METH_NOARGS,
     "reset($self, /)\n--\n\nIn the child of a fork: as if nothing was counted."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef counter_attributes[] = {
    {"value", counter_value, nullptr, "How many were served; None until one was.", nullptr},
    {"ended_ns", counter_ended_ns, nullptr, "When the newest ended; 0: none did.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

}  // namespace

void add_request_counter(py::module_& m, py::handle state_module) {
    const char* doc = "RequestCounter(gauge)\n--\n\n"
                      "Counts requests, and each in flight as a load of 1 in a LoadGauge.";
    PyType_Slot slots[] = {
        {Py_tp_doc, const_cast<char*>(doc)},
        {Py_tp_new, reinterpret_cast<void*>(counter_new)},
        {Py_tp_dealloc, reinterpret_cast<void*>(counter_dealloc)},
        {Py_tp_methods, counter_methods},
        {Py_tp_getset, counter_attributes},
        {0, nullptr},
    };
    // Not tracked by the garbage collector: it holds no objects.
    PyType_Spec spec = {"memguard_native._core.RequestCounter", sizeof(RequestCounterObject), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, slots};
    Py_DECREF(add_type(m, state_module, spec));  // the module keeps it
}

}  // namespace memguard
