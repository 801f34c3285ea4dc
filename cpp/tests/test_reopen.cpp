// Open periods: constant by default, growing with each reopening, spread, never beyond the limit.
#include "check.hpp"
#include "circuit.hpp"

using namespace memguard;

namespace {

BreakerConfig growing() {
    BreakerConfig config;
    config.reset_timeout_ns = 10 * kNsPerSecond;
    config.probe_timeout_ns = 10 * kNsPerSecond;
    config.max_reset_timeout_ns = 60 * kNsPerSecond;
    config.backoff_factor = 2.0;
    return config;
}

// Lets the open period end, and the probe with `verdict`. Returns the new wait in seconds.
std::int64_t probe(Circuit& circuit, std::int64_t& now, Verdict verdict, AskedWait asked = {}) {
    now += circuit.retry_after_ns(now) + kNsPerMs;
    circuit.settle(circuit.admit(now).token(), verdict, now, false, asked);
    return (circuit.retry_after_ns(now) + kNsPerSecond / 2) / kNsPerSecond;
}

}  // namespace

TEST(the_wait_is_constant_unless_configured) {
    const BreakerConfig constant;
    for (const std::uint32_t step : {0u, 1u, 1000u}) {
        CHECK(reopen_wait_ns(constant, step, 0.7) == constant.reset_timeout_ns);
    }
}

TEST(the_wait_grows_by_the_factor_up_to_the_limit) {
    const BreakerConfig c = growing();
    CHECK(reopen_wait_ns(c, 0, 0.5) == 10 * kNsPerSecond);
    CHECK(reopen_wait_ns(c, 2, 0.5) == 40 * kNsPerSecond);
    CHECK(reopen_wait_ns(c, 3, 0.5) == 60 * kNsPerSecond);
    CHECK(reopen_wait_ns(c, 100'000, 0.5) == 60 * kNsPerSecond);
}

TEST(jitter_spreads_around_below_or_in_the_upper_half_of_the_wait) {
    BreakerConfig c = growing();
    c.jitter = 0.5;
    CHECK(reopen_wait_ns(c, 0, 0.0) == 5 * kNsPerSecond);
    CHECK(reopen_wait_ns(c, 0, 0.5) == 10 * kNsPerSecond);
    CHECK(reopen_wait_ns(c, 5, 0.99) == 60 * kNsPerSecond);
    c.jitter_mode = Jitter::full;
    CHECK(reopen_wait_ns(c, 0, 0.0) == kNsPerMs);
    CHECK(reopen_wait_ns(c, 9, 0.5) == 30 * kNsPerSecond);
    c.jitter_mode = Jitter::equal;
    CHECK(reopen_wait_ns(c, 0, 0.0) == 5 * kNsPerSecond);
}

TEST(draws_are_spread_over_the_unit_interval_and_differ_by_seed) {
    Draws one{1};
    Draws two{2};
    int low = 0;
    int equal = 0;
    for (int i = 0; i < 10'000; ++i) {
        const double draw = one.next();
        CHECK(draw >= 0.0 && draw < 1.0);
        low += draw < 0.5 ? 1 : 0;
        equal += draw == two.next() ? 1 : 0;
    }
    CHECK(low > 4500 && low < 5500);
    CHECK(equal < 5);
}

TEST(each_failed_probe_grows_the_wait_and_a_closing_starts_over) {
    Circuit circuit{growing()};
    std::int64_t now = kNsPerSecond;
    circuit.trip(now);
    CHECK(probe(circuit, now, Verdict::failure) == 20);
    CHECK(probe(circuit, now, Verdict::failure) == 40);
    CHECK(probe(circuit, now, Verdict::success) == 0);
    circuit.trip(now);
    CHECK(probe(circuit, now, Verdict::failure) == 20);
}

TEST(a_wait_told_by_the_dependency_is_clipped_and_does_not_grow_the_next) {
    Circuit circuit{growing()};
    std::int64_t now = kNsPerSecond;
    circuit.trip(now);
    CHECK(probe(circuit, now, Verdict::failure, {7 * kNsPerSecond}) == 7);
    CHECK(probe(circuit, now, Verdict::failure, {1000 * kNsPerSecond}) == 60);
    CHECK(probe(circuit, now, Verdict::failure) == 20);
}

TEST(inconclusive_probes_open_again_without_growing_the_wait) {
    Circuit circuit{growing()};
    std::int64_t now = kNsPerSecond;
    circuit.trip(now);
    probe(circuit, now, Verdict::neutral);
    probe(circuit, now, Verdict::neutral);
    CHECK(probe(circuit, now, Verdict::neutral) == 10);
    CHECK(probe(circuit, now, Verdict::failure) == 20);
}

TEST(a_lost_probe_that_counts_as_a_failure_grows_the_wait) {
    BreakerConfig config = growing();
    config.lost_probe_fails = true;
    Circuit circuit{config};
    std::int64_t now = kNsPerSecond;
    circuit.trip(now);
    now += 11 * kNsPerSecond;
    CHECK(circuit.admit(now).token().is_probe());
    now += 11 * kNsPerSecond;
    const Admission late = circuit.admit(now);
    CHECK(late.decision == Decision::rejected_open && late.event == Event::probe_lost);
    CHECK(late.retry_after_ns > 19 * kNsPerSecond);
    CHECK(probe(circuit, now, Verdict::failure) == 40);
}

TEST(a_wait_by_the_users_formula_grows_the_step_and_one_that_was_told_does_not) {
    Circuit circuit{growing()};
    std::int64_t now = kNsPerSecond;
    circuit.trip(now);
    CHECK(probe(circuit, now, Verdict::failure, {3 * kNsPerSecond, true}) == 3);
    CHECK(circuit.cell.step() == 1);
    CHECK(probe(circuit, now, Verdict::failure, {3 * kNsPerSecond}) == 3);
    CHECK(circuit.cell.step() == 1);
}
