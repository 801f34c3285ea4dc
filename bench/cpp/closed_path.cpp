// How many calls a second pass a closed breaker, by threads that share it?
//
//   closed_path word|counter THREADS CALLS     prints millions of calls per second, of all threads
//
// word     as a guard does: the shared word is loaded and compared before and after the call
// counter  as a breaker with a shared counter does: one fetch_add per call, for comparison
//
// CALLS is per thread.
#include <atomic>   // std::atomic
#include <cstdint>  // std::uint64_t
#include <cstdio>   // std::printf, std::fprintf
#include <cstdlib>  // std::strtoull
#include <string_view>
#include <thread>
#include <vector>

#include "calls.hpp"
#include "memguard/breaker_word.hpp"
#include "memguard/config.hpp"

namespace {

// A line of its own, as in BreakerCell.
struct alignas(memguard::kCacheLineBytes) Shared {
    std::atomic<std::uint64_t> bits{memguard::Word::closed(0, 1).bits()};
};

template <auto kCall>
double millions_per_s(unsigned threads, std::uint64_t calls) {
    static Shared shared;
    std::atomic<unsigned> come{0};
    std::vector<bench::Span> spans(threads);
    {
        std::vector<std::jthread> running;
        for (bench::Span& span : spans) {
            running.emplace_back([&span, &come, threads, calls] {
                bench::meet(come, threads);
                span = bench::make_calls<kCall>(shared.bits, calls);
            });
        }
    }
    bench::Span whole = spans.front();
    for (const bench::Span& span : spans) {
        whole = whole.joined(span);
    }
    return static_cast<double>(calls) * threads / whole.microseconds();
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
        what == "word" ? millions_per_s<bench::call_guarded> : millions_per_s<bench::call_counted>;
    std::printf("%.3f\n", measure(threads, calls));
    return 0;
}
