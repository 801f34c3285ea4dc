// RingBuffer(capacity): the newest float64 values, at the price of less than a deque.
//
// push() is one METH_O call without a Python object kept; snapshot() is one copy into a new numpy
// array. numpy is imported by the first snapshot and never by an import of ours. Any thread may
// call anything: HistoryRing wants one writer at a time, which the GIL makes true for push(), and
// the critical section of the object on a build without it; snapshot() needs neither.
#include <algorithm>  // std::min
#include <memory>     // std::unique_ptr
#include <new>        // std::bad_alloc

#include "memguard/ring.hpp"
#include "state.hpp"

#if PY_VERSION_HEX < 0x030D0000
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

namespace py = pybind11;

namespace memguard {
namespace {

using Ring = HistoryRing<double>;

constexpr Py_ssize_t kMaxCapacity = Py_ssize_t{1} << 27;  // 1 GiB of values

// Above it the copy takes more than 5 us, and other threads may as well run meanwhile.
constexpr std::size_t kCopyWithoutGil = 16 * 1024;

struct RingBuffer {
    PyObject_HEAD
    Ring* ring;  // on the heap of its own: Python's allocator knows no alignment to cache lines
};

Ring& ring_of(PyObject* self) noexcept {
    return *reinterpret_cast<RingBuffer*>(self)->ring;
}

PyObject* new_ring_buffer(PyTypeObject* type, Py_ssize_t capacity) {
    std::unique_ptr<Ring> ring;
    try {
        ring = std::make_unique<Ring>(static_cast<std::size_t>(capacity));
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    }
    auto* const self = reinterpret_cast<RingBuffer*>(type->tp_alloc(type, 0));
    if (self != nullptr) {
        self->ring = ring.release();
    }
    return reinterpret_cast<PyObject*>(self);
}

PyObject* ring_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
    PyObject* given = nullptr;
    static const char* const names[] = {"capacity", nullptr};
    if (PyArg_ParseTupleAndKeywords(args, keywords, "O:RingBuffer", const_cast<char**>(names),
                                    &given) == 0) {
        return nullptr;
    }
    if (PyBool_Check(given) || PyIndex_Check(given) == 0) {
        return PyErr_Format(PyExc_TypeError, "capacity must be an int, got %R", given);
    }
    const Py_ssize_t capacity = PyNumber_AsSsize_t(given, nullptr);  // clips what is too large
    if (capacity == -1 && PyErr_Occurred() != nullptr) {
        return nullptr;
    }
    if (capacity < 1 || capacity > kMaxCapacity) {
        return PyErr_Format(PyExc_ValueError, "capacity must be from 1 to %zd, got %R",
                            kMaxCapacity, given);
    }
    return new_ring_buffer(type, capacity);
}

void ring_dealloc(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    delete reinterpret_cast<RingBuffer*>(self)->ring;
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject* ring_push(PyObject* self, PyObject* value) {
    double number;
    if (PyFloat_CheckExact(value)) [[likely]] {
        number = PyFloat_AS_DOUBLE(value);
    } else {
        number = PyFloat_AsDouble(value);
        if (number == -1.0 && PyErr_Occurred() != nullptr) {
            return nullptr;
        }
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    ring_of(self).push(number);
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

// numpy.empty(count): a new array of float64.
py::object new_array(std::size_t count) {
    const auto name = py::reinterpret_steal<py::object>(PyUnicode_InternFromString("numpy"));
    auto numpy = py::reinterpret_steal<py::object>(PyImport_GetModule(name.ptr()));
    if (!numpy || numpy.is_none()) {  // None: somebody forbade the import, and it says so
        numpy = py::module_::import("numpy");
    }
    return numpy.attr("empty")(count);
}

class ArrayBuffer {
  public:
    explicit ArrayBuffer(py::handle array) {
        if (PyObject_GetBuffer(array.ptr(), &view_, PyBUF_SIMPLE | PyBUF_WRITABLE) != 0) {
            throw py::error_already_set();
        }
    }
    ~ArrayBuffer() { PyBuffer_Release(&view_); }
    ArrayBuffer(const ArrayBuffer&) = delete;
    ArrayBuffer& operator=(const ArrayBuffer&) = delete;
    [[nodiscard]] double* data() const noexcept { return static_cast<double*>(view_.buf); }

  private:
    Py_buffer view_;
};

py::object snapshot(const Ring& ring) {
    const std::size_t count = std::min(static_cast<std::size_t>(ring.pushed()), ring.capacity());
    py::object array = new_array(count);
    std::size_t copied = 0;
    {
        const ArrayBuffer buffer{array};
        PyThreadState* const state = count > kCopyWithoutGil ? PyEval_SaveThread() : nullptr;
        copied = ring.snapshot(buffer.data(), count).count;
        if (state != nullptr) {
            PyEval_RestoreThread(state);
        }
    }
    if (copied < count) {  // other threads pushed meanwhile and overtook the oldest values
        array = array[py::slice(0, static_cast<py::ssize_t>(copied), 1)];
    }
    return array;
}

PyObject* ring_snapshot(PyObject* self, PyObject*) {
    try {
        return snapshot(ring_of(self)).release().ptr();
    } catch (py::error_already_set& error) {
        error.restore();
        return nullptr;
    }
}

Py_ssize_t ring_length(PyObject* self) {
    const Ring& ring = ring_of(self);
    return static_cast<Py_ssize_t>(
        std::min(static_cast<std::size_t>(ring.pushed()), ring.capacity()));
}

PyObject* ring_capacity(PyObject* self, void*) {
    return PyLong_FromSize_t(ring_of(self).capacity());
}

PyObject* ring_pushed(PyObject* self, void*) {
    return PyLong_FromUnsignedLongLong(ring_of(self).pushed());
}

PyMethodDef ring_methods[] = {
    {"push", ring_push, METH_O,
     "push($self, value, /)\n--\n\nAppend a number; a full ring drops its oldest."},
    {"snapshot", ring_snapshot, METH_NOARGS,
     "snapshot($self, /)\n--\n\nThe values as a new numpy array of float64, oldest first."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef ring_attributes[] = {
    {"capacity", ring_capacity, nullptr, "How many values are kept at most.", nullptr},
    {"pushed", ring_pushed, nullptr, "How many values were ever pushed.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

}  // namespace

void add_ring(py::module_& m, py::handle state_module) {
    const char* doc = "RingBuffer(capacity)\n--\n\n"
                      "The newest `capacity` numbers, as float64. Any thread may push and read.";
    PyType_Slot slots[] = {
        {Py_tp_doc, const_cast<char*>(doc)},
        {Py_tp_new, reinterpret_cast<void*>(ring_new)},
        {Py_tp_dealloc, reinterpret_cast<void*>(ring_dealloc)},
        {Py_tp_methods, ring_methods},
        {Py_tp_getset, ring_attributes},
        {Py_sq_length, reinterpret_cast<void*>(ring_length)},
        {0, nullptr},
    };
    // Not tracked by the garbage collector: it holds no objects.
    PyType_Spec spec = {"memguard_native._core.RingBuffer", sizeof(RingBuffer), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, slots};
    Py_DECREF(add_type(m, state_module, spec));  // the module keeps it
}

}  // namespace memguard
