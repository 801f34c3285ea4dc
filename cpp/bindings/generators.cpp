// GuardedGenerator and GuardedAsyncGenerator: iterators behind a circuit breaker.
//
// Admitted at the first next: exhaustion is a success, an exception is classified; closed or
// dropped, the verdict is neutral. A step of an asynchronous generator is an awaitable of its own,
// AsyncGeneratorStep, which asks for admission when it is first awaited.
#include "exceptions.hpp"
#include "probe_scope.hpp"
#include "stepper.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

enum class Kind : std::uint8_t { next, send, raise, close };

struct AsyncGeneratorStep {
    PyObject_HEAD
    Stepper* generator;  // owned
    PyObject* argument;  // the value to send, the tuple of athrow's arguments, or null
    PyObject* inner;     // what drives the inner generator; null before the first send
    Kind kind;
    bool is_done;
    bool has_turn;  // the step that runs; others meanwhile are refused by the inner generator
};

AsyncGeneratorStep* as_step(PyObject* self) noexcept {
    return reinterpret_cast<AsyncGeneratorStep*>(self);
}

PyObject* new_step(PyObject* generator, Kind kind, PyObject* argument = nullptr) {
    PyTypeObject* const type = state_of(generator).async_step_type;
    auto* const self = as_step(type->tp_alloc(type, 0));
    if (self != nullptr) {
        self->generator = as_stepper(Py_NewRef(generator));
        self->argument = Py_XNewRef(argument);
        self->kind = kind;
    }
    return reinterpret_cast<PyObject*>(self);
}

// The inner generator's own step: an object, not yet driven.
PyObject* make_inner(const ModuleState& state, const AsyncGeneratorStep* self) {
    PyObject* const generator = self->generator->inner;
    switch (self->kind) {
    case Kind::next:
        return PyObject_CallMethodNoArgs(generator, state.method_anext);
    case Kind::send:
        return PyObject_CallMethodOneArg(generator, state.method_asend, self->argument);
    case Kind::close:
        return PyObject_CallMethodNoArgs(generator, state.method_aclose);
    case Kind::raise:
        break;
    }
    PyObject* const method = PyObject_GetAttr(generator, state.method_athrow);
    PyObject* const step =
        method != nullptr ? PyObject_CallObject(method, self->argument) : nullptr;
    Py_XDECREF(method);
    return step;
}

void end_turn(AsyncGeneratorStep* self) noexcept {
    self->is_done = true;
    if (self->has_turn) {
        self->has_turn = false;
        self->generator->is_stepping = false;
    }
}

// Admission if it is due, then the inner step. False with an exception set.
bool begin(const ModuleState& state, AsyncGeneratorStep* self) {
    Stepper* const generator = self->generator;
    if (!generator->is_stepping) {
        generator->is_stepping = self->has_turn = true;
    }
    if (generator->stage == Stage::created) {
        if (self->kind == Kind::raise || self->kind == Kind::close) {
            generator->stage = Stage::finished;  // never admitted, so no verdict
        } else {
            PyObject* unused = nullptr;  // an asynchronous generator's fallback gives no result
            if (start_step(generator, &unused) == Start::raised) {
                return false;
            }
        }
    }
    PyObject* const step = make_inner(state, self);
    if (step == nullptr) {
        return false;
    }
    self->inner = awaitable_iterator(step);
    Py_DECREF(step);
    return self->inner != nullptr;
}

// A step that yielded leaves the generator running; StopAsyncIteration classifies as success.
void settle_step(AsyncGeneratorStep* self, bool raised) {
    const bool had_turn = self->has_turn;
    end_turn(self);
    Stepper* const generator = self->generator;
    if (generator->stage != Stage::running || !had_turn) {
        return;
    }
    if (self->kind == Kind::close) {
        settle_neutral(generator);
    } else if (raised) {
        settle(generator, std::nullopt);
    }
}

bool check_not_done(const AsyncGeneratorStep* self) {
    if (self->is_done) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse a step that was awaited already");
    }
    return !self->is_done;
}

PySendResult step_send(PyObject* object, PyObject* value, PyObject** result) {
    AsyncGeneratorStep* const self = as_step(object);
    const ModuleState& state = state_of(object);
    *result = nullptr;
    if (!check_not_done(self)) {
        return PYGEN_ERROR;
    }
    if (self->inner == nullptr && !begin(state, self)) {
        end_turn(self);
        return PYGEN_ERROR;
    }
    PySendResult sent;
    {
        const Stepper* const generator = self->generator;
        const bool running = generator->stage == Stage::running;
        const ProbeScope scope{state, *generator->guard->breaker,
                               running ? generator->call.token : Token{}};
        sent = PyIter_Send(self->inner, value, result);
    }
    if (sent != PYGEN_NEXT) {
        settle_step(self, sent == PYGEN_ERROR);
    }
    return sent;
}

PyObject* step_iternext(PyObject* self) {
    PyObject* result = nullptr;
    const PySendResult sent = step_send(self, Py_None, &result);
    return as_iternext(sent, result);
}

PyObject* step_send_method(PyObject* self, PyObject* value) {
    PyObject* result = nullptr;
    const PySendResult sent = step_send(self, value, &result);
    return as_send_method(sent, result);
}

PyObject* step_throw(PyObject* object, PyObject* const* args, Py_ssize_t count) {
    AsyncGeneratorStep* const self = as_step(object);
    const ModuleState& state = state_of(object);
    if (!check_not_done(self)) {
        return nullptr;
    }
    if (self->inner == nullptr) {
        // Not awaited yet, as when its task is cancelled at once: no admission of its own.
        self->inner = make_inner(state, self);
        if (self->inner == nullptr) {
            return nullptr;
        }
        if (!self->generator->is_stepping) {
            self->generator->is_stepping = self->has_turn = true;
        }
    }
    PyObject* const result = call_throw(state, self->inner, args, count);
    if (result == nullptr) {
        // StopIteration is the end of the step alone: the generator yielded.
        settle_step(self, PyErr_ExceptionMatches(PyExc_StopIteration) == 0);
    }
    return result;
}

PyObject* step_close(PyObject* object, PyObject*) {
    AsyncGeneratorStep* const self = as_step(object);
    end_turn(self);
    if (self->inner == nullptr) {
        return Py_NewRef(Py_None);
    }
    return PyObject_CallMethodNoArgs(self->inner, state_of(object).method_close);
}

int step_traverse(PyObject* object, visitproc visit, void* arg) {
    AsyncGeneratorStep* const self = as_step(object);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->generator);
    Py_VISIT(self->argument);
    Py_VISIT(self->inner);
    return 0;
}

int step_clear(PyObject* object) {
    AsyncGeneratorStep* const self = as_step(object);
    end_turn(self);
    Py_CLEAR(self->argument);
    Py_CLEAR(self->inner);
    return 0;
}

void step_dealloc(PyObject* object) {
    AsyncGeneratorStep* const self = as_step(object);
    PyTypeObject* const type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    end_turn(self);
    Py_XDECREF(self->inner);
    Py_XDECREF(self->argument);
    Py_XDECREF(self->generator);
    type->tp_free(object);
    Py_DECREF(type);
}

PyObject* async_generator_anext(PyObject* self) {
    return new_step(self, Kind::next);
}

PyObject* async_generator_asend(PyObject* self, PyObject* value) {
    return new_step(self, Kind::send, value);
}

PyObject* async_generator_athrow(PyObject* self, PyObject* args) {
    return new_step(self, Kind::raise, args);
}

PyObject* async_generator_aclose(PyObject* self, PyObject*) {
    return new_step(self, Kind::close);
}

PyMethodDef step_methods[] = {
    {"send", step_send_method, METH_O, "Resume the step with a value."},
    {"throw", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(step_throw)), METH_FASTCALL,
     "Resume the step with an exception."},
    {"close", step_close, METH_NOARGS, "Give the step up."},
    {nullptr, nullptr, 0, nullptr},
};

PyMethodDef async_generator_methods[] = {
    {"asend", async_generator_asend, METH_O, "Resume it with a value."},
    {"athrow", async_generator_athrow, METH_VARARGS, "Resume it with an exception."},
    {"aclose", async_generator_aclose, METH_NOARGS, "Stop it; says nothing to the breaker."},
    {nullptr, nullptr, 0, nullptr},
};

constexpr unsigned kFlags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                            Py_TPFLAGS_DISALLOW_INSTANTIATION;

PyTypeObject* add_generator(py::module_& m, py::handle state_module) {
    PyType_Slot slots[] = {
        {Py_tp_traverse, reinterpret_cast<void*>(stepper_traverse)},
        {Py_tp_clear, reinterpret_cast<void*>(stepper_clear)},
        {Py_tp_dealloc, reinterpret_cast<void*>(stepper_dealloc)},
        {Py_tp_iter, reinterpret_cast<void*>(PyObject_SelfIter)},
        {Py_tp_iternext, reinterpret_cast<void*>(stepper_iternext)},
        {Py_tp_getattro, reinterpret_cast<void*>(stepper_getattro)},
        {Py_tp_repr, reinterpret_cast<void*>(stepper_repr)},
        {Py_tp_methods, stepper_methods},
        {Py_tp_members, stepper_members},
        {Py_am_send, reinterpret_cast<void*>(stepper_send)},
        {0, nullptr},
    };
    PyType_Spec spec = {"memguard_native._core.GuardedGenerator", sizeof(Stepper), 0, kFlags,
                        slots};
    return add_type(m, state_module, spec);
}

PyTypeObject* add_async_generator(py::module_& m, py::handle state_module) {
    PyType_Slot slots[] = {
        {Py_tp_traverse, reinterpret_cast<void*>(stepper_traverse)},
        {Py_tp_clear, reinterpret_cast<void*>(stepper_clear)},
        {Py_tp_dealloc, reinterpret_cast<void*>(stepper_dealloc)},
        {Py_tp_getattro, reinterpret_cast<void*>(stepper_getattro)},
        {Py_tp_repr, reinterpret_cast<void*>(stepper_repr)},
        {Py_tp_methods, async_generator_methods},
        {Py_tp_members, stepper_members},
        {Py_am_aiter, reinterpret_cast<void*>(PyObject_SelfIter)},
        {Py_am_anext, reinterpret_cast<void*>(async_generator_anext)},
        {0, nullptr},
    };
    PyType_Spec spec = {"memguard_native._core.GuardedAsyncGenerator", sizeof(Stepper), 0, kFlags,
                        slots};
    return add_type(m, state_module, spec);
}

PyTypeObject* add_step(py::module_& m, py::handle state_module) {
    PyType_Slot slots[] = {
        {Py_tp_traverse, reinterpret_cast<void*>(step_traverse)},
        {Py_tp_clear, reinterpret_cast<void*>(step_clear)},
        {Py_tp_dealloc, reinterpret_cast<void*>(step_dealloc)},
        {Py_tp_iternext, reinterpret_cast<void*>(step_iternext)},
        {Py_tp_methods, step_methods},
        {Py_am_await, reinterpret_cast<void*>(PyObject_SelfIter)},
        {Py_am_send, reinterpret_cast<void*>(step_send)},
        {0, nullptr},
    };
    PyType_Spec spec = {"memguard_native._core.AsyncGeneratorStep", sizeof(AsyncGeneratorStep), 0,
                        kFlags, slots};
    return add_type(m, state_module, spec);
}

}  // namespace

void add_guarded_generators(py::module_& m, py::handle state_module, ModuleState& state) {
    state.generator_type = add_generator(m, state_module);
    state.async_generator_type = add_async_generator(m, state_module);
    state.async_step_type = add_step(m, state_module);
    state.method_anext = PyUnicode_InternFromString("__anext__");
    state.method_asend = PyUnicode_InternFromString("asend");
    state.method_athrow = PyUnicode_InternFromString("athrow");
    state.method_aclose = PyUnicode_InternFromString("aclose");
    if (state.method_anext == nullptr || state.method_asend == nullptr ||
        state.method_athrow == nullptr || state.method_aclose == nullptr) {
        throw py::error_already_set();
    }
}

}  // namespace memguard
