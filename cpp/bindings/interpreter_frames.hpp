// The running stack of a thread, read without creating an object.
//
// For hooks of the allocator: there sys._getframe()'s way is closed, because it allocates frame
// objects, in the middle of an allocation, perhaps of that very frame object. tracemalloc reads the
// interpreter's own frames instead, and so do we. Their layout is CPython's own business and
// differs by version; what is needed of it is written down here for the versions that were looked
// at, and compared with the public API before it is used (frames_are_as_expected).
#pragma once

#include <pybind11/pybind11.h>

namespace memguard {

// CPython 3.11-3.14 with the GIL.
#if !defined(Py_GIL_DISABLED) && !defined(PYPY_VERSION) && PY_VERSION_HEX < 0x030F0000
inline constexpr bool kReadsFrames = true;
#else
inline constexpr bool kReadsFrames = false;
#endif

// The thread state that is attached to this very thread: it holds the GIL of its interpreter.
// nullptr: there is none, and no Python code runs here.
[[nodiscard]] inline PyThreadState* attached_thread() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
    return PyThreadState_GetUnchecked();
#elif PY_VERSION_HEX >= 0x030C0000
    return _PyThreadState_UncheckedGet();
#else
    // Before 3.12 it names whichever thread holds the GIL. A library that calls PyMem_Malloc
    // without it would have us read the stack of a thread that runs.
    PyThreadState* const holder = _PyThreadState_UncheckedGet();
    return holder == PyGILState_GetThisThreadState() ? holder : nullptr;
#endif
}

class InterpreterFrame {
  public:
    [[nodiscard]] static InterpreterFrame innermost(PyThreadState* thread) noexcept {
#if PY_VERSION_HEX >= 0x030D0000
        return InterpreterFrame{thread->current_frame};
#else
        return InterpreterFrame{thread->cframe->current_frame};
#endif
    }

    explicit operator bool() const noexcept { return frame_ != nullptr; }

    [[nodiscard]] InterpreterFrame caller() const noexcept {
        return InterpreterFrame{static_cast<struct _PyInterpreterFrame*>(word(kPrevious))};
    }

    // Borrowed; nullptr for a frame of the interpreter's own, and for one that has not begun.
    [[nodiscard]] PyCodeObject* code() const noexcept {
        PyObject* const found = executable();
        if (found == nullptr || !PyCode_Check(found)) {
            return nullptr;
        }
        auto* const code = reinterpret_cast<PyCodeObject*>(found);
        const bool has_begun = offset_in(code) / kCodeUnitBytes >= code->_co_firsttraceable;
        return has_begun ? code : nullptr;
    }

    // Where it is in its code, as PyCode_Addr2Line() takes it.
    [[nodiscard]] int offset_in([[maybe_unused]] PyCodeObject* code) const noexcept {
#if PY_VERSION_HEX >= 0x030C0000
        return PyUnstable_InterpreterFrame_GetLasti(frame_);
#else
        const auto* const at = static_cast<const _Py_CODEUNIT*>(word(kInstruction));
        return static_cast<int>(at - _PyCode_CODE(code)) * kCodeUnitBytes;
#endif
    }

  private:
    static constexpr int kCodeUnitBytes = 2;

    explicit InterpreterFrame(struct _PyInterpreterFrame* frame) noexcept : frame_(frame) {}

#if PY_VERSION_HEX >= 0x030C0000
    static constexpr std::size_t kPrevious = 1;

    [[nodiscard]] PyObject* executable() const noexcept {
        PyObject* const found = PyUnstable_InterpreterFrame_GetCode(frame_);
        Py_XDECREF(found);  // the frame keeps it
        return found;
    }
#else
    static constexpr std::size_t kCode = 4;
    static constexpr std::size_t kPrevious = 6;
    static constexpr std::size_t kInstruction = 7;

    [[nodiscard]] PyObject* executable() const noexcept {
        return static_cast<PyObject*>(word(kCode));
    }
#endif

    [[nodiscard]] void* word(std::size_t number) const noexcept {
        return reinterpret_cast<void* const*>(frame_)[number];
    }

    struct _PyInterpreterFrame* frame_;
};

// Whether reading the frames finds what the public API tells of this thread's stack.
[[nodiscard]] inline bool frames_are_as_expected() noexcept {
    PyThreadState* const thread = PyThreadState_Get();
    InterpreterFrame read = InterpreterFrame::innermost(thread);
    PyFrameObject* told = PyThreadState_GetFrame(thread);
    bool same = true;
    while (told != nullptr && same) {
        while (read && read.code() == nullptr) {
            read = read.caller();
        }
        PyCodeObject* const code = PyFrame_GetCode(told);
        same = read && read.code() == code && read.offset_in(code) == PyFrame_GetLasti(told);
        Py_DECREF(code);
        if (same) {
            read = read.caller();
        }
        PyFrameObject* const caller = PyFrame_GetBack(told);
        Py_DECREF(told);
        told = caller;
    }
    Py_XDECREF(told);
    return same;
}

}  // namespace memguard
