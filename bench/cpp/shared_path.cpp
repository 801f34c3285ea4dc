// How many calls a second pass a closed breaker, by one process of two that share it, and by both?
//
//   shared_path word|counter BURSTS CALLS     prints, for each burst, millions of calls per second:
//                                             of each process alone, and of each when both call
//
// word     as a guard does: the shared word is loaded and compared before and after the call
// counter  as a breaker with a shared counter does: one fetch_add per call, for comparison
//
// While one calls alone the other spins beside it: a core runs faster while its neighbour sleeps,
// and that is not for the breaker to answer for. CALLS is per process and burst; the rate of both
// is over the time from the first one's start to the last one's end.
#include <algorithm>  // std::min
#include <array>      // std::array
#include <atomic>     // std::atomic
#include <cstdint>    // std::uint64_t
#include <cstdio>     // std::printf, std::fprintf
#include <cstdlib>    // std::strtoull
#include <string_view>
#include <utility>  // std::pair
#include <vector>

#include "calls.hpp"
#include "memguard/config.hpp"
#include "sharing.hpp"

namespace {

constexpr unsigned kProcesses = 2;

struct Notes {
    alignas(memguard::kCacheLineBytes) std::atomic<unsigned> come{0};
    alignas(memguard::kCacheLineBytes) std::atomic<std::uint64_t> counter{0};
    alignas(memguard::kCacheLineBytes) std::array<bench::Span, kProcesses> alone{};
    std::array<bench::Span, kProcesses> together{};
};

// Millions of calls per second of each burst: alone, and of each of both.
using Rates = std::vector<std::pair<double, double>>;

Rates run(const bench::SegmentFile& file, Notes& notes, bool guarded, unsigned number,
          unsigned bursts, std::uint64_t calls) {
    bench::stay_on_core(number);
    bench::Sharer sharer{file};
    const auto make_calls = [&] {
        return guarded ? bench::make_calls<bench::call_guarded>(sharer.cell().word(), calls)
                       : bench::make_calls<bench::call_counted>(notes.counter, calls);
    };
    const auto millions_per_s = [&](const bench::Span& span) {
        return static_cast<double>(calls) / span.microseconds();
    };
    unsigned expected = 0;
    const auto meet = [&] { bench::meet(notes.come, expected += kProcesses); };
    Rates found;
    for (unsigned burst = 0; burst < bursts; ++burst) {
        for (unsigned turn = 0; turn < kProcesses; ++turn) {
            meet();
            if (turn == number) {
                notes.alone[number] = make_calls();
            }
        }
        meet();
        notes.together[number] = make_calls();
        meet();
        found.emplace_back(std::min(millions_per_s(notes.alone[0]), millions_per_s(notes.alone[1])),
                           millions_per_s(notes.together[0].joined(notes.together[1])));
    }
    return found;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string_view what = argc == 4 ? argv[1] : "";
    if (what != "word" && what != "counter") {
        std::fprintf(stderr, "usage: shared_path word|counter BURSTS CALLS\n");
        return 2;
    }
    const auto bursts = static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10));
    const std::uint64_t calls = std::strtoull(argv[3], nullptr, 10);
    if (bursts == 0 || calls == 0) {
        std::fprintf(stderr, "shared_path: BURSTS and CALLS are positive numbers\n");
        return 2;
    }
    const bench::SegmentFile file;
    Notes& notes = bench::new_notes<Notes>();
    const auto side = [&](unsigned number) {
        return run(file, notes, what == "word", number, bursts, calls);
    };
    const pid_t child = bench::in_child([&] { side(1); });
    const Rates found = side(0);
    bench::wait_for(child);
    for (const auto& [alone, both] : found) {
        std::printf("%.3f %.3f\n", alone, both);
    }
    return 0;
}
