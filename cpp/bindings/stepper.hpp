// Stepper: what a guarded coroutine, generator or asynchronous generator function returns.
//
// Admission falls at the first step, the verdict at the end. It adds no frame: tracebacks and
// stacks are the inner object's, to which every other attribute is forwarded. The types are made in
// awaitable.cpp and generators.cpp; here is what they share.
#pragma once

#include "guard.hpp"

namespace memguard {

enum class Stage : std::uint8_t {
    created,
    running,   // admitted, no verdict yet
    finished,  // the verdict was given, or none is due: steps are only forwarded
};

struct Stepper {
    PyObject_HEAD
    PyObject* inner;  // never null
    Guard* guard;     // owned
    PyObject* args;   // the call's, for the fallback and on_reject; null if there is neither
    PyObject* keywords;
    Call call;  // meaningful while running
    Stage stage;
    // A step is being made: another one in the middle of it, which Python refuses with an error, is
    // a mistake of the caller's and says nothing about the dependency. Misuse by threads without a
    // GIL may slip through; it is an error there all the same.
    bool is_stepping;
    PyObject* weakrefs;
};

inline Stepper* as_stepper(PyObject* self) noexcept {
    return reinterpret_cast<Stepper*>(self);
}

// Steps `inner` (stolen) under the guard. Null with an exception set if out of memory.
[[nodiscard]] PyObject* new_stepper(Guard* guard, PyObject* inner, PyObject* const* args,
                                    std::size_t nargsf, PyObject* kwnames) noexcept;

// What became of the admission that the first step asked for.
enum class Start : std::uint8_t {
    go_on,     // admitted, or the fallback's object takes the place of `inner`
    returned,  // the fallback gave the result itself
    raised,    // rejected, or the fallback raised
};

// Asks for admission; `result` is set where it says `returned`.
[[nodiscard]] Start start_step(Stepper* self, PyObject** result);

// Tells the verdict, once. Empty: the exception that is set decides, and stays set.
void settle(Stepper* self, std::optional<Verdict> verdict);

// Tells a neutral one; an exception that is set stays set.
void settle_neutral(Stepper* self);

// A step of an object that implements one of them; they give `slot`s to the types.
PySendResult stepper_send(PyObject* self, PyObject* value, PyObject** result);
PyObject* stepper_iternext(PyObject* self);
PyObject* stepper_send_method(PyObject* self, PyObject* value);
PyObject* stepper_throw(PyObject* self, PyObject* const* args, Py_ssize_t count);
PyObject* stepper_close(PyObject* self, PyObject*);
PyObject* stepper_getattro(PyObject* self, PyObject* name);
PyObject* stepper_repr(PyObject* self);
int stepper_traverse(PyObject* self, visitproc visit, void* arg);
int stepper_clear(PyObject* self);
void stepper_dealloc(PyObject* self);

extern PyMethodDef stepper_methods[];  // send, throw, close
extern PyMemberDef stepper_members[];

// The end of a step in the two ways in which CPython drives steps: `sent` by am_send becomes what
// tp_iternext and what a method `send` return.
[[nodiscard]] PyObject* as_iternext(PySendResult sent, PyObject* result);
[[nodiscard]] PyObject* as_send_method(PySendResult sent, PyObject* result);

// The iterator that drives an awaitable, as `await` finds it; null with TypeError for others.
[[nodiscard]] PyObject* awaitable_iterator(PyObject* awaitable);

// inner.throw(*args), as it is.
[[nodiscard]] PyObject* call_throw(const ModuleState& state, PyObject* inner, PyObject* const* args,
                                   Py_ssize_t count);

}  // namespace memguard
