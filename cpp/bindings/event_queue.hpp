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

    // Needs the GIL, and no error may be set. Never raises. `detail`: a text, or null.
    // Tell the reader by wake(), afterwards: it may run Python.
    void push(const BreakerEvent& event, const pybind11::object& detail) noexcept {
        if (detail) {
            keep(event, detail);
        }
        ring_.push(event);
    }

    // There is an event, or somebody wants the reader to look about.
    void wake() noexcept {
        // acq_rel: whoever is woken sees the event; pairs with the store in arm()
        if (armed_.exchange(false, std::memory_order_acq_rel)) {
            PyObject* const done = PyObject_CallNoArgs(wake_.ptr());
            if (done == nullptr) {
                PyErr_WriteUnraisable(wake_.ptr());
            }
            Py_XDECREF(done);
        }
    }

    // The text that was pushed with the event, or None; it is given once.
    [[nodiscard]] pybind11::object take_detail(const BreakerEvent& event) {
        if (event.reason() == Event::reconfigured) {
            return pybind11::none();  // of the generation that it found, whose detail is another's
        }
        return details_.attr("pop")(key(event), pybind11::none());
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
    [[nodiscard]] static pybind11::tuple key(const BreakerEvent& event) {
        return pybind11::make_tuple(event.breaker_id, event.generation);
    }

    void keep(const BreakerEvent& event, const pybind11::object& detail) noexcept {
        try {
            if (details_.size() >= kCapacity) {  // the oldest is of an event that the ring has lost
                details_.attr("pop")(
                    pybind11::reinterpret_borrow<pybind11::object>(*pybind11::iter(details_)));
            }
            details_[key(event)] = detail;
        } catch (pybind11::error_already_set& error) {
            error.discard_as_unraisable("memguard_native: keeping the detail of an event");
        }
    }

    pybind11::object wake_;
    pybind11::dict details_;  // of events in the ring
    std::atomic<bool> armed_{true};
    std::atomic<std::uint64_t> next_id_{0};
    Ring ring_;
};

}  // namespace memguard
