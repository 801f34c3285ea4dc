// trampoline(f): the emptiest wrapper that CPython allows. It is what any native decorator costs at
// least, hence the denominator of the benchmarks.
#include "state.hpp"
#include "vectorcall.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

struct Trampoline {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject* function;
};

PyObject* trampoline_vectorcall(PyObject* self, PyObject* const* args, std::size_t nargsf,
                                PyObject* kwnames) {
    return call_target(reinterpret_cast<Trampoline*>(self)->function, args, nargsf, kwnames);
}

PyObject* trampoline_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
    PyObject* function = nullptr;
    static const char* const names[] = {"function", nullptr};
    if (PyArg_ParseTupleAndKeywords(args, keywords, "O:trampoline", const_cast<char**>(names),
                                    &function) == 0) {
        return nullptr;
    }
    if (PyCallable_Check(function) == 0) {
        return PyErr_Format(PyExc_TypeError, "trampoline() takes a callable, got %R", function);
    }
    auto* const self = reinterpret_cast<Trampoline*>(type->tp_alloc(type, 0));
    if (self != nullptr) {
        self->vectorcall = trampoline_vectorcall;
        self->function = Py_NewRef(function);
    }
    return reinterpret_cast<PyObject*>(self);
}

int trampoline_traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(reinterpret_cast<Trampoline*>(self)->function);
    return 0;
}

// No tp_clear: the function is never null, and a cycle through it is broken elsewhere.
void trampoline_dealloc(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_DECREF(reinterpret_cast<Trampoline*>(self)->function);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject* trampoline_get(PyObject* self, PyObject* instance, PyObject*) {
    return instance == nullptr ? Py_NewRef(self) : PyMethod_New(self, instance);
}

PyMemberDef trampoline_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Trampoline, vectorcall), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

}  // namespace

void add_trampoline(py::module_& m, py::handle state_module, ModuleState& state) {
    const char* doc = "trampoline(function)\n--\n\n"
                      "An empty wrapper: what any native decorator costs at least. The yardstick "
                      "of the benchmarks.";
    PyType_Slot slots[] = {
        {Py_tp_doc, const_cast<char*>(doc)},
        {Py_tp_new, reinterpret_cast<void*>(trampoline_new)},
        {Py_tp_traverse, reinterpret_cast<void*>(trampoline_traverse)},
        {Py_tp_dealloc, reinterpret_cast<void*>(trampoline_dealloc)},
        {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
        {Py_tp_descr_get, reinterpret_cast<void*>(trampoline_get)},
        {Py_tp_members, trampoline_members},
        {0, nullptr},
    };
    PyType_Spec spec = {"memguard_native._core.trampoline", sizeof(Trampoline), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                            Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_IMMUTABLETYPE,
                        slots};
    state.trampoline_type = add_type(m, state_module, spec);
}

}  // namespace memguard
