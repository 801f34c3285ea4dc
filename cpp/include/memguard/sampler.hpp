// Sampler<Probe>: a thread that samples a probe at an interval into a ring.
//
// samples(), and what IntervalThread says of start(), stop() and waiting: any thread. In the child
// of a fork it is a husk, as its thread is.
#pragma once

#include <cstddef>  // std::size_t
#include <cstdint>  // std::int64_t
#include <utility>  // std::forward

#include "memguard/interval_thread.hpp"
#include "memguard/ring.hpp"
#include "memguard/sample.hpp"

namespace memguard {

template <class Probe>
class Sampler {
  public:
    // Takes a sample every `interval_ns` > 0 once it is started, and keeps the newest `capacity`.
    template <class... ProbeArguments>
    Sampler(std::int64_t interval_ns, std::size_t capacity, ProbeArguments&&... arguments)
        : probe_(std::forward<ProbeArguments>(arguments)...), ring_(capacity),
          thread_("memguard-sample", interval_ns, [this] { ring_.push(probe_.sample()); }) {}

    ~Sampler() { stop(); }
    Sampler(const Sampler&) = delete;
    Sampler& operator=(const Sampler&) = delete;

    // As IntervalThread::start(); it samples at once.
    void start() { thread_.start(); }

    // As IntervalThread::stop(). In a child it also gives the descriptors of the probe back.
    void stop() noexcept {
        thread_.stop();
        if (thread_.is_abandoned()) {
            probe_.close();
        }
    }

    // Waits until more than `after` samples were ever taken: true. False when `timeout_ns` is over,
    // and at once when it is stopped, or belongs to the parent of this process.
    [[nodiscard]] bool wait_for_sample(std::uint64_t after, std::int64_t timeout_ns) noexcept {
        return thread_.wait_until([&] { return ring_.pushed() > after; }, timeout_ns);
    }

    [[nodiscard]] const HistoryRing<MemorySample>& samples() const noexcept { return ring_; }

    // For what may be read of a probe while the thread uses it.
    [[nodiscard]] const Probe& probe() const noexcept { return probe_; }

    // For what any thread may ask of it meanwhile.
    [[nodiscard]] Probe& probe() noexcept { return probe_; }

  private:
    Probe probe_;  // used by the thread alone while it runs
    HistoryRing<MemorySample> ring_;
    IntervalThread thread_;
};

}  // namespace memguard
