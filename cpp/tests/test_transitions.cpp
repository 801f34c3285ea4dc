// The truth tables of the word: pure functions, no threads. Named after the rules they prove.
#include "check.hpp"

#include <random>   // std::mt19937_64
#include <utility>  // std::pair

#include "memguard/transitions.hpp"

using namespace memguard;

namespace {

constexpr BreakerConfig kConfig{};
constexpr std::int64_t kNow = 1'000 * kNsPerSecond;
constexpr std::int64_t kTimeout = kConfig.reset_timeout_ns;
constexpr Token kNormal{7, TokenKind::normal};
constexpr Token kProbe{7, TokenKind::probe};

constexpr Word half_open_with(std::uint64_t in_flight, std::uint64_t successes = 0,
                              std::uint64_t neutral = 0) {
    return Word::half_open(in_flight, successes, neutral, lease_end_tick(kConfig, kNow), 7);
}

// The functions are constexpr: a few facts are proved by the compiler.
static_assert(healthy(Word::closed(0, 4'194'303).bits()));
static_assert(!healthy(Word::closed(1, 0).bits()));
static_assert(!healthy(Word::open(0, 0).bits()));
static_assert(Word::closed(5, 9).next_generation() == 10);
static_assert(Word::closed(0, Word::kGenerationMask).next_generation() == 0);

}  // namespace

TEST(fields_survive_packing) {
    const Word w = Word::half_open(63, 31, 63, Word::kLeaseMask, Word::kGenerationMask);
    CHECK(w.phase() == Phase::half_open);
    CHECK(w.in_flight() == 63 && w.successes() == 31 && w.neutral() == 63);
    CHECK(w.lease_end() == Word::kLeaseMask && w.generation() == Word::kGenerationMask);
    const std::int64_t deadline_ms = (1LL << 40) - 1;
    CHECK(Word::open(deadline_ms, 3).deadline_ms() == deadline_ms);
}

TEST(closed_admits_without_a_store) {
    for (std::uint64_t failures : {0u, 1u, 4u}) {
        const Word w = Word::closed(failures, 7);
        const Admission a = admit(w, kConfig, kNow);
        CHECK(a.decision == Decision::admitted && a.next == w && a.event == Event::none);
        CHECK(!a.token().is_probe() && a.token().generation == 7);
    }
}

TEST(consecutive_failures_open_at_the_threshold_and_success_starts_over) {
    Word w = Word::closed(0, 7);
    for (std::uint64_t i = 1; i <= 4; ++i) {
        const Step step = settle(w, kNormal, Verdict::failure, kConfig, kNow);
        CHECK(step.event == Event::counted && step.next == Word::closed(i, 7));
        w = step.next;
    }
    CHECK(settle(w, kNormal, Verdict::success, kConfig, kNow).next == Word::closed(0, 7));
    CHECK(settle(w, kNormal, Verdict::neutral, kConfig, kNow).next == w);
    const Step fifth = settle(w, kNormal, Verdict::failure, kConfig, kNow);
    CHECK(fifth.event == Event::consecutive_failures);
    CHECK(fifth.next.phase() == Phase::open && fifth.next.generation() == 8);
}

TEST(the_failure_count_saturates) {
    BreakerConfig never = kConfig;
    never.failure_threshold = (1LL << 31) + 5;
    const Word w = Word::closed(Word::kMaxFailures, 7);
    CHECK(settle(w, kNormal, Verdict::failure, never, kNow).next == w);
}

TEST(open_rejects_until_its_deadline_and_never_early) {
    const Word w = opened(Word::closed(4, 7), kConfig, kNow + 1);
    for (const std::int64_t passed : {std::int64_t{0}, std::int64_t{1}, kTimeout / 2, kTimeout}) {
        const Admission a = admit(w, kConfig, kNow + passed);
        CHECK(a.decision == Decision::rejected_open && a.next == w);
        CHECK(a.retry_after_ns >= kMinRetryAfterNs && a.retry_after_ns <= kTimeout + kNsPerMs);
    }
    const Admission due = admit(w, kConfig, kNow + kTimeout + kNsPerMs);
    CHECK(due.decision == Decision::admitted && due.event == Event::timeout);
    CHECK(due.next.in_flight() == 1 && due.next.generation() == 9);
    CHECK(due.token().is_probe());
}

TEST(a_deadline_further_ahead_than_any_wait_counts_as_over) {
    const std::int64_t limit_ms = (kNow + kConfig.max_reset_timeout_ns) / kNsPerMs + 1000;
    CHECK(admit(Word::open(limit_ms, 7), kConfig, kNow).decision == Decision::rejected_open);
    CHECK(admit(Word::open(limit_ms + 1, 7), kConfig, kNow).decision == Decision::admitted);
}

TEST(half_open_admits_one_probe_and_rejects_the_rest_with_the_remaining_lease) {
    const Admission second = admit(half_open_with(1), kConfig, kNow + kNsPerSecond);
    CHECK(second.decision == Decision::rejected_probing);
    CHECK(second.retry_after_ns > 0 && second.retry_after_ns <= kConfig.probe_timeout_ns);
    const Admission free = admit(half_open_with(0), kConfig, kNow);
    CHECK(free.decision == Decision::admitted && free.next.in_flight() == 1);
    CHECK(free.next.generation() == 7);
}

TEST(half_open_never_admits_more_probes_than_successes_are_missing) {
    BreakerConfig wide = kConfig;
    wide.half_open_max = 3;
    wide.success_threshold = 3;
    CHECK(admit(half_open_with(2, 0), wide, kNow).decision == Decision::admitted);
    CHECK(admit(half_open_with(3, 0), wide, kNow).decision == Decision::rejected_probing);
    CHECK(admit(half_open_with(1, 2), wide, kNow).decision == Decision::rejected_probing);
    CHECK(admit(half_open_with(0, 2), wide, kNow).decision == Decision::admitted);
}

TEST(a_lost_lease_is_taken_over_in_a_new_generation) {
    const Word w = half_open_with(1);
    const std::int64_t later = kNow + kConfig.probe_timeout_ns + kLeaseTickNs;
    const Admission a = admit(w, kConfig, later);
    CHECK(a.decision == Decision::admitted && a.event == Event::probe_lost);
    CHECK(a.next.in_flight() == 1 && a.next.generation() == 8);
    CHECK(settle(a.next, kProbe, Verdict::success, kConfig, later).event == Event::stale);
}

TEST(a_lease_longer_than_any_lease_counts_as_over) {
    const std::uint64_t end = lease_end_tick(kConfig, kNow) + 1000;
    const Word w = Word::half_open(1, 0, 0, end, 7);
    CHECK(admit(w, kConfig, kNow).event == Event::probe_lost);
}

TEST(the_lease_survives_the_wrap_of_its_ticks) {
    const std::int64_t wrap = static_cast<std::int64_t>(Word::kLeaseMask + 1) * kLeaseTickNs;
    const std::int64_t before = wrap - kNsPerSecond;
    const Word w = admit(Word::open(0, 7), kConfig, before).next;
    CHECK(admit(w, kConfig, before + 2 * kNsPerSecond).decision == Decision::rejected_probing);
    CHECK(admit(w, kConfig, before + 61 * kNsPerSecond).event == Event::probe_lost);
}

TEST(a_probe_decides) {
    const Word w = half_open_with(1);
    const Step success = settle(w, kProbe, Verdict::success, kConfig, kNow);
    CHECK(success.event == Event::probe_succeeded && success.next == Word::closed(0, 8));
    const Step failure = settle(w, kProbe, Verdict::failure, kConfig, kNow);
    CHECK(failure.event == Event::probe_failed && failure.next.phase() == Phase::open);
    const Step neutral = settle(w, kProbe, Verdict::neutral, kConfig, kNow);
    CHECK(neutral.event == Event::counted && neutral.next.in_flight() == 0);
    CHECK(neutral.next.generation() == 7 && neutral.next.neutral() == 1);
}

TEST(too_many_neutral_probes_in_a_row_are_inconclusive) {
    const Step step = settle(half_open_with(1, 0, 2), kProbe, Verdict::neutral, kConfig, kNow);
    CHECK(step.event == Event::inconclusive && step.next.phase() == Phase::open);
}

TEST(several_successes_are_counted_and_end_a_row_of_neutral_probes) {
    BreakerConfig two = kConfig;
    two.success_threshold = 2;
    const Step first = settle(half_open_with(1, 0, 1), kProbe, Verdict::success, two, kNow);
    CHECK(first.event == Event::counted && first.next.successes() == 1);
    CHECK(first.next.neutral() == 0 && first.next.in_flight() == 0);
    CHECK(settle(half_open_with(1, 1), kProbe, Verdict::success, two, kNow).event ==
          Event::probe_succeeded);
}

TEST(verdicts_of_another_era_are_stale) {
    const Word words[] = {Word::closed(2, 8), Word::open(5, 8), half_open_with(1)};
    for (const Word w : words) {
        for (const Verdict v : {Verdict::success, Verdict::failure, Verdict::neutral}) {
            CHECK(settle(w, Token{6, TokenKind::normal}, v, kConfig, kNow).event == Event::stale);
            CHECK(settle(w, Token{6, TokenKind::probe}, v, kConfig, kNow).event == Event::stale);
            CHECK(settle(w, Token{6, TokenKind::probe}, v, kConfig, kNow).next == w);
        }
    }
}

TEST(a_token_of_the_wrong_kind_is_stale) {
    CHECK(settle(Word::closed(0, 7), kProbe, Verdict::failure, kConfig, kNow).event ==
          Event::stale);
    CHECK(settle(half_open_with(1), kNormal, Verdict::success, kConfig, kNow).event ==
          Event::stale);
}

TEST(trip_and_reset_start_a_new_generation_from_any_phase) {
    const Word words[] = {Word::closed(0, 7), Word::closed(3, 7), Word::open(5, 7),
                          half_open_with(1)};
    for (const Word w : words) {
        CHECK(trip(w, kConfig, kNow).next.phase() == Phase::open);
        CHECK(trip(w, kConfig, kNow).next.generation() == 8);
        CHECK(reset(w).next == Word::closed(0, 8));
    }
}

TEST(a_lost_probe_that_counts_as_a_failure_opens_again) {
    BreakerConfig strict = kConfig;
    strict.lost_probe_fails = true;
    const std::int64_t later = kNow + kConfig.probe_timeout_ns + kLeaseTickNs;
    const Admission a = admit(half_open_with(1), strict, later, kNsPerSecond);
    CHECK(a.decision == Decision::rejected_open && a.event == Event::probe_lost);
    CHECK(a.next.phase() == Phase::open && a.next.generation() == 8);
    CHECK(a.retry_after_ns > 0 && a.retry_after_ns <= kNsPerSecond + kNsPerMs);
}

TEST(forced_open_rejects_until_its_end_and_then_admits_a_probe) {
    const Word w = force_open(Word::closed(3, 7), kNow / kNsPerMs + 1000).next;
    CHECK(w.phase() == Phase::forced_open && w.generation() == 8);
    const Admission now = admit(w, kConfig, kNow);
    CHECK(now.decision == Decision::rejected_forced && now.next == w);
    CHECK(now.retry_after_ns > 0 && now.retry_after_ns <= kNsPerSecond);
    const Admission over = admit(w, kConfig, kNow + kNsPerSecond + kNsPerMs);
    CHECK(over.event == Event::timeout && over.token().is_probe());
}

TEST(forced_open_without_end_says_the_longest_wait_and_never_ends) {
    const Word w = force_open(Word::closed(0, 7), Word::kNoEnd).next;
    const Admission a = admit(w, kConfig, std::int64_t{1} << 61);
    CHECK(a.decision == Decision::rejected_forced);
    CHECK(a.retry_after_ns == kConfig.max_reset_timeout_ns);
}

TEST(disabled_admits_all_counts_none_and_closes_at_its_end) {
    const Word w = disable(Word::open(5, 7), kNow / kNsPerMs + 1000).next;
    const Admission a = admit(w, kConfig, kNow);
    CHECK(a.decision == Decision::admitted && a.next == w && !a.token().counts());
    CHECK(settle(w, a.token(), Verdict::failure, kConfig, kNow).next == w);
    const Admission over = admit(w, kConfig, kNow + kNsPerSecond);
    CHECK(over.decision == Decision::admitted && over.event == Event::timeout);
    CHECK(over.next == Word::closed(0, 9) && over.token().counts());
}

TEST(what_is_set_by_hand_outranks_a_trip_and_makes_old_verdicts_stale) {
    const Word closed = Word::closed(4, 7);
    for (const Word w :
         {force_open(closed, Word::kNoEnd).next, disable(closed, Word::kNoEnd).next}) {
        CHECK(trip(w, kConfig, kNow).next == w);
        CHECK(settle(w, kNormal, Verdict::failure, kConfig, kNow).event == Event::stale);
        CHECK(settle(w, kProbe, Verdict::success, kConfig, kNow).event == Event::stale);
        CHECK(reset(w).next == Word::closed(0, 9));
    }
}

TEST(release_gives_control_back_to_the_rules) {
    const Word forced = force_open(Word::closed(0, 7), Word::kNoEnd).next;
    CHECK(admit(release(forced, kNow).next, kConfig, kNow).token().is_probe());
    const Word off = disable(Word::closed(0, 7), Word::kNoEnd).next;
    CHECK(release(off, kNow).next == Word::closed(0, 9));
    for (const Word w : {Word::closed(3, 7), Word::open(5, 7), half_open_with(1)}) {
        CHECK(release(w, kNow).next == w);
    }
}

TEST(a_forked_child_holds_no_probe) {
    const Step step = after_fork(half_open_with(1, 0, 1));
    CHECK(step.next.in_flight() == 0 && step.next.generation() == 8);
    CHECK(after_fork(Word::closed(3, 7)).next == Word::closed(3, 7));
    CHECK(after_fork(Word::open(9, 7)).next == Word::open(9, 7));
}

TEST(every_bit_pattern_is_legal_and_admits_once_time_has_passed) {
    std::mt19937_64 random{20261124};
    for (int i = 0; i < 200'000; ++i) {
        const Word w{random()};
        const Admission a = admit(w, kConfig, kNow);
        CHECK((a.decision == Decision::admitted) == (a.retry_after_ns == 0));
        if (w.phase() != Phase::forced_open || w.end_ms() != Word::kNoEnd) {
            const std::int64_t later = kNow + a.retry_after_ns + 2 * kLeaseTickNs;
            CHECK(admit(w, kConfig, later).decision == Decision::admitted);
        }
        for (const Verdict v : {Verdict::success, Verdict::failure, Verdict::neutral}) {
            const bool half_open = w.phase() == Phase::half_open;
            const Token t{w.generation(), half_open ? TokenKind::probe : TokenKind::normal};
            CHECK(settle(w, t, v, kConfig, kNow).next.in_flight() <= Word::kMaxInFlight);
        }
    }
}

TEST(where_a_prober_is_set_callers_wait_for_it) {
    BreakerConfig c;
    c.has_active_probe = true;
    const std::int64_t due = 61 * kNsPerSecond;
    const Word open = opened(Word::closed(5, 0), c, 0);
    const Admission caller = admit(open, c, due);
    CHECK(caller.decision == Decision::rejected_open && caller.awaits_prober);
    CHECK(caller.next == open && caller.retry_after_ns == c.monitor_interval_ns);
    CHECK(!admit(open, c, 0).awaits_prober);

    const Word probing = admit(open, c, due, kConfiguredWait, Asker::prober).next;
    CHECK(probing.phase() == Phase::half_open && probing.in_flight() == 1);
    CHECK(admit(probing, c, due).decision == Decision::rejected_probing);
    const Word lost_at = probing;
    CHECK(admit(lost_at, c, due + 61 * kNsPerSecond).awaits_prober);
    CHECK(admit(lost_at, c, due + 61 * kNsPerSecond, kConfiguredWait, Asker::prober).event ==
          Event::probe_lost);
}

TEST(no_more_probes_run_at_once_than_may_or_than_are_needed) {
    BreakerConfig c;
    c.half_open_max = 1;
    c.success_threshold = 2;
    const Word one_runs = admit(opened(Word::closed(5, 0), c, 0), c, 61 * kNsPerSecond).next;
    CHECK(admit(one_runs, c, 61 * kNsPerSecond).decision == Decision::rejected_probing);
    c.half_open_max = 3;
    const Word two_run = admit(one_runs, c, 61 * kNsPerSecond).next;
    CHECK(two_run.in_flight() == 2);
    CHECK(admit(two_run, c, 61 * kNsPerSecond).decision == Decision::rejected_probing);
}

TEST(a_failure_that_breaks_two_rules_names_the_consecutive_one) {
    BreakerConfig c;
    c.failure_threshold = 2;
    const Token t{0};
    const auto event = [&](std::uint64_t failures, Verdict v) {
        return settle(Word::closed(failures, 0), t, v, c, 0, kConfiguredWait, Event::failure_rate)
            .event;
    };
    CHECK(event(0, Verdict::failure) == Event::failure_rate);
    CHECK(event(1, Verdict::failure) == Event::consecutive_failures);
    CHECK(event(0, Verdict::success) == Event::failure_rate);
    CHECK(event(1, Verdict::neutral) == Event::failure_rate);
}

TEST(a_corrupt_word_without_a_probe_on_its_way_loses_none) {
    const BreakerConfig c;
    const Word none = Word::half_open(0, 0, 0, lease_end_tick(c, 0), 3);
    const Token t{3, TokenKind::probe};
    CHECK(settle(none, t, Verdict::neutral, c, 0).next.in_flight() == 0);
}

TEST(what_is_done_by_hand_begins_a_new_era_and_says_so) {
    const BreakerConfig c;
    const Word closed = Word::closed(3, 7);
    const Word forced = force_open(closed, Word::kNoEnd).next;
    const Word disabled = disable(closed, Word::kNoEnd).next;
    for (const auto& [done, event] : {std::pair{trip(closed, c, 0), Event::manual},
                                      {reset(closed), Event::reset},
                                      {force_open(closed, 5), Event::manual},
                                      {disable(closed, 5), Event::manual}}) {
        CHECK(done.event == event && done.next.generation() == 8);
    }
    for (const Step done : {release(forced, 0), release(disabled, 0)}) {
        CHECK(done.event == Event::manual && done.next.generation() == 9);
    }
    const Word half_open = Word::half_open(1, 0, 0, 5, 7);
    CHECK(after_fork(half_open).event == Event::forked);
    CHECK(after_fork(half_open).next == Word::half_open(0, 0, 0, 5, 8));
}

TEST(where_a_prober_is_set_callers_wait_for_it_after_a_forced_state_too) {
    BreakerConfig c;
    c.has_active_probe = true;
    const Word over = force_open(Word::closed(0, 0), 5).next;
    const Admission caller = admit(over, c, kNsPerSecond);
    CHECK(caller.decision == Decision::rejected_open && caller.awaits_prober);
    CHECK(admit(over, c, kNsPerSecond, kConfiguredWait, Asker::prober).token().is_probe());
    const Word half_open = Word::half_open(0, 0, 0, 0, 0);
    const Admission late = admit(half_open, c, 61 * kNsPerSecond);
    CHECK(late.decision == Decision::rejected_probing && late.awaits_prober);
}
