// The transitions of an interpreter's breakers on their way to the thread that tells listeners.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>  // std::atomic

#include "memguard/event_ring.hpp"

namespace memguard {

class EventQueue {
  public:
    static constexpr std::size_t kCapacity = 1024;
    using Ring = EventRing<kCapacity>;

    // `wake`: called with no argument and no lock when there is something to read; not again
    // before arm().
    explicit EventQueue(pybind11::object wake) : wake_(std::move(wake)) {}

    // Needs the GIL, and no error may be set. Never raises.
    void push(const BreakerEvent& event) noexcept {
        ring_.push(event);
        // acq_rel: whoever is woken sees the event; pairs with the store in arm()
        if (armed_.exchange(false, std::memory_order_acq_rel)) {
            PyObject* const done = PyObject_CallNoArgs(wake_.ptr());
            if (done == nullptr) {
                PyErr_WriteUnraisable(wake_.ptr());
            }
            Py_XDECREF(done);
        }
    }

    // Asks to be woken by the next event. Read after it: an event before it wakes nobody.
    void arm() noexcept {
        // release: pairs with the exchange in push()
        armed_.store(true, std::memory_order_release);
    }

    [[nodiscard]] std::uint64_t new_breaker_id() noexcept {
        // relaxed: only has to be another number each time
        return next_id_.fetch_add(1, std::memory_order_relaxed);
    }

    [[nodiscard]] const Ring& ring() const noexcept { return ring_; }

  private:
    pybind11::object wake_;
    std::atomic<bool> armed_{true};
    std::atomic<std::uint64_t> next_id_{0};
    Ring ring_;
};

}  // namespace memguard
