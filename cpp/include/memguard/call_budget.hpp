// CallBudget: how often a call may be made whose cost grows with the process.
//
// glibc's mallinfo2 walks every free list under the lock of its arena: 0.1 us in a fresh process,
// 20 ms with a million free chunks. So each call is timed, and a dear one is made more rarely: in
// the mean it costs no sample more than 100 us.
// Pure bookkeeping: no clock, no thread; one owner.
#pragma once

#include <cstdint>  // std::int64_t

namespace memguard {

class CallBudget {
  public:
    // Asked once per sample: is the call to be made for this one?
    [[nodiscard]] constexpr bool due() noexcept {
        if (every_ == kNever) {
            return false;
        }
        ++samples_;
        if (samples_ < every_) {
            return false;
        }
        samples_ = 0;
        return true;
    }

    // What the call that was due has cost: decides when the next one is.
    constexpr void record(std::int64_t cost_ns) noexcept {
        every_ = cost_ns > kNeverAboveNs     ? kNever
                 : cost_ns > kEvery60AboveNs ? 60
                 : cost_ns > kEvery10AboveNs ? 10
                                             : 1;
    }

  private:
    static constexpr std::int64_t kEvery10AboveNs = 100'000;
    static constexpr std::int64_t kEvery60AboveNs = 1'000'000;
    static constexpr std::int64_t kNeverAboveNs = 6'000'000;
    static constexpr std::int64_t kNever = 0;

    std::int64_t every_ = 1;
    std::int64_t samples_ = 0;  // since the last call
};

}  // namespace memguard
