// How many calls a second pass a closed breaker, by threads that share it?
//
//   closed_path word|counter THREADS CALLS     prints millions of calls per second, of all threads
//
// word     as a guard does: the shared word is loaded and compared before and after the call
// counter  as a breaker with a shared counter does: one fetch_add per call, for comparison
//
// CALLS is per thread. The call is empty, but the compiler cannot see that.
#include "memguard/breaker_word.hpp"
#include "memguard/config.hpp"

#include <algorithm>  // std::max, std::min
#include <atomic>     // std::atomic
#include <chrono>     // std::chrono::steady_clock
#include <cstdint>    // std::uint64_t
#include <cstdio>     // std::printf, std::fprintf
#include <cstdlib>    // std::strtoull
#include <string_view>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Function = bool (*)() noexcept;

// A line of its own, as in BreakerCell.
struct alignas(memguard::kCacheLineBytes) Shared {
    std::atomic<std::uint64_t> bits{memguard::Word::closed(0, 1).bits()};
};

struct Span {
    Clock::time_point start;
    Clock::time_point end;
};

[[gnu::noinline]] bool target() noexcept {
    asm volatile("" ::: "memory");
    return true;
}

[[gnu::noinline, gnu::cold]] bool leave_to_the_cold_path() noexcept {
    asm volatile("" ::: "memory");
    return false;
}

bool call_guarded(Shared& shared, Function function) noexcept {
    // acquire: as the guard, which pairs it with the compare_exchange of a transition
    const std::uint64_t word = shared.bits.load(std::memory_order_acquire);
    if (!memguard::healthy(word)) [[unlikely]] {
        return leave_to_the_cold_path();
    }
    const bool result = function();
    // relaxed: only compared
    if (!result || shared.bits.load(std::memory_order_relaxed) != word) [[unlikely]] {
        return leave_to_the_cold_path();
    }
    return result;
}

bool call_counted(Shared& shared, Function function) noexcept {
    // relaxed: a sum; nothing is decided from it
    shared.bits.fetch_add(1, std::memory_order_relaxed);
    return function();
}

template <bool (*kCall)(Shared&, Function) noexcept>
double millions_per_s(unsigned threads, std::uint64_t calls) {
    static Shared shared;
    const Function volatile opaque = target;
    std::atomic<unsigned> missing{threads};
    std::vector<Span> spans(threads);
    {
        std::vector<std::jthread> running;
        for (Span& span : spans) {
            running.emplace_back([&span, &missing, calls, function = Function{opaque}] {
                Span own;
                // Spinning, so that all begin within a microsecond. relaxed: nothing is published
                missing.fetch_sub(1, std::memory_order_relaxed);
                while (missing.load(std::memory_order_relaxed) != 0) {
                }
                own.start = Clock::now();
                for (std::uint64_t done = 0; done < calls; ++done) {
                    kCall(shared, function);
                }
                own.end = Clock::now();
                span = own;
            });
        }
    }
    Span whole = spans.front();
    for (const Span& span : spans) {
        whole = {std::min(whole.start, span.start), std::max(whole.end, span.end)};
    }
    const std::chrono::duration<double, std::micro> elapsed = whole.end - whole.start;
    return static_cast<double>(calls) * threads / elapsed.count();
}

}  // namespace

int main(int argc, char** argv) {
    const std::string_view what = argc == 4 ? argv[1] : "";
    if (what != "word" && what != "counter") {
        std::fprintf(stderr, "usage: closed_path word|counter THREADS CALLS\n");
        return 2;
    }
    const auto threads = static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10));
    const std::uint64_t calls = std::strtoull(argv[3], nullptr, 10);
    if (threads == 0 || calls == 0) {
        std::fprintf(stderr, "closed_path: THREADS and CALLS are positive numbers\n");
        return 2;
    }
    const auto measure =
        what == "word" ? millions_per_s<call_guarded> : millions_per_s<call_counted>;
    std::printf("%.3f\n", measure(threads, calls));
    return 0;
}
