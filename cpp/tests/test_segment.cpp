// The shared segment in one process, and in children that are killed.
#include "check.hpp"

#include <sys/mman.h>  // mmap
#include <sys/wait.h>  // waitpid
#include <unistd.h>    // fork, _exit

#include <csignal>  // kill
#include <memory>   // std::unique_ptr
#include <string>   // std::string

#include "memguard/segment.hpp"

using namespace memguard;

namespace {

constexpr Surroundings kHere{{1, 2}, 3, 4};

// Memory as a file would be mapped: of pages, zeros, shared with children.
struct Mapped {
    Mapped()
        : bytes(::mmap(nullptr, Segment::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                       -1, 0)) {
        CHECK(bytes != MAP_FAILED);
        Segment::format(bytes, kHere, 5, 6, 7);
    }
    ~Mapped() { ::munmap(bytes, Segment::kBytes); }
    Mapped(const Mapped&) = delete;
    Mapped& operator=(const Mapped&) = delete;

    void* bytes;
    Segment segment{bytes};
};

// A process with a slot of its own, waiting to be killed. Returns its process number.
template <class Work>
pid_t start_child(const Segment& segment, Work work) {
    int ready[2];
    CHECK(::pipe(ready) == 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
        const std::uint32_t slot = segment.claim_slot(ProcessOwner::self(), 0, 0);
        work(slot);
        CHECK(::write(ready[1], "x", 1) == 1);
        for (;;) {
            ::pause();
        }
    }
    char told = 0;
    CHECK(::read(ready[0], &told, 1) == 1);
    ::close(ready[0]);
    ::close(ready[1]);
    return pid;
}

void kill_child(pid_t pid) {
    ::kill(pid, SIGKILL);
    CHECK(::waitpid(pid, nullptr, 0) == pid);
}

// A breaker of the segment as the process with this slot uses it.
struct Shared {
    Shared(const Segment& segment, std::size_t index, std::uint32_t slot)
        : row(slot), claim(slot < kSlots ? segment.claim_of(slot) : 0),
          choice(row, kSlots, kSharedRows), breaker(segment.breaker(index)),
          cell(1, choice, breaker.state, breaker.counters.data(), claim) {}

    std::atomic<std::uint32_t> row;
    std::atomic<std::uint64_t> claim;
    RowChoice choice;
    SharedBreaker& breaker;
    BreakerCell cell;
    Rules rules{};
};

}  // namespace

TEST(a_segment_is_known_by_its_header) {
    Mapped mapped;
    CHECK(mapped.segment.fault(kHere) == SegmentFault::none);
    CHECK(mapped.segment.fault({{1, 9}, 3, 4}) == SegmentFault::other_boot);
    CHECK(mapped.segment.fault({{1, 2}, 9, 4}) == SegmentFault::other_time_namespace);
    CHECK(mapped.segment.fault({{1, 2}, 3, 9}) == SegmentFault::none);
    mapped.segment.header().slots.store(33);
    CHECK(mapped.segment.fault(kHere) == SegmentFault::damaged);
    mapped.segment.header().slots.store(kSlots);
    mapped.segment.header().magic.store(0);
    CHECK(mapped.segment.fault(kHere) == SegmentFault::damaged);
}

TEST(names_are_found_again_and_are_as_many_as_there_are_places) {
    Mapped mapped;
    const Segment& segment = mapped.segment;
    CHECK(segment.find("a") == Segment::kNone && segment.find("") == Segment::kNone);
    const std::size_t first = segment.claim_name("a");
    CHECK(segment.claim_name("a") == first && segment.find("a") == first);
    const std::string longest(kNameBytes, 'n');
    const std::size_t second = segment.claim_name(longest);
    CHECK(second != first && segment.find(longest) == second);
    for (std::size_t i = 2; i < kSharedBreakers; ++i) {
        CHECK(segment.claim_name("b" + std::to_string(i)) != Segment::kNone);
    }
    CHECK(segment.claim_name("one too many") == Segment::kNone);
    CHECK(segment.claim_name("a") == first);
}

TEST(a_process_that_was_killed_is_dead_also_before_anybody_waits_for_it) {
    Mapped mapped;
    const pid_t child = start_child(mapped.segment, [](std::uint32_t) {});
    CHECK(!mapped.segment.is_dead(0));
    ::kill(child, SIGKILL);
    while (!mapped.segment.is_dead(0)) {
    }
    CHECK(::waitpid(child, nullptr, 0) == child);
    CHECK(mapped.segment.is_dead(0));
    CHECK(!ProcessOwner{}.is_dead());
    const ProcessOwner self = ProcessOwner::self();
    CHECK(!self.is_dead() && self.pid() == static_cast<std::uint64_t>(::getpid()));
    CHECK(ProcessOwner(self.pid(), 1).is_dead());  // another process had this number
}

TEST(a_slot_is_taken_over_from_the_dead_and_its_counters_go_on) {
    Mapped mapped;
    const Segment& segment = mapped.segment;
    const pid_t child = start_child(segment, [&](std::uint32_t slot) {
        segment.breaker(0).counters[slot].failures.store(5);
        segment.slot(slot).requests.store(7);
    });
    for (std::size_t i = 1; i < kSlots; ++i) {
        CHECK(segment.claim_slot(ProcessOwner::self(), 0, 0) == i);
    }
    CHECK(segment.claim_slot(ProcessOwner::self(), 0, 0) == kOverflowRow);
    kill_child(child);
    CHECK(segment.claim_slot(ProcessOwner::self(), 0, 0) == 0);
    CHECK(segment.claim_of(0) == 2);
    CHECK(segment.breaker(0).counters[0].failures.load() == 5);
    CHECK(segment.slot(0).requests.load() == 7 && segment.slot(0).requests_base.load() == 7);
    segment.release_slot(3, ProcessOwner::self());
    CHECK(segment.claim_slot(ProcessOwner::self(), 0, 0) == 3);
}

TEST(a_probe_of_a_process_that_was_killed_is_given_back_once) {
    Mapped mapped;
    const Segment& segment = mapped.segment;
    const std::uint32_t slot = segment.claim_slot(ProcessOwner::self(), 0, 0);
    Shared mine{segment, 0, slot};
    mine.cell.trip(mine.rules, 0);
    const std::int64_t due = 60 * kNsPerSecond;
    const pid_t child = start_child(segment, [&](std::uint32_t its_slot) {
        Shared theirs{segment, 0, its_slot};
        CHECK(theirs.cell.admit(theirs.rules, due).token().is_probe());
    });
    const std::uint64_t generation = mine.cell.load().generation();
    std::uint64_t orphans = 0;
    const auto count = [&](std::uint64_t probes) { orphans += probes; };
    segment.each_orphaned_probe(0, generation, count);
    CHECK(orphans == 0 && mine.cell.load().in_flight() == 1);  // it lives
    kill_child(child);
    segment.each_orphaned_probe(0, generation + 1, count);
    CHECK(orphans == 0);  // of another round
    segment.each_orphaned_probe(0, generation, count);
    segment.each_orphaned_probe(0, generation, count);
    CHECK(orphans == 1);
    CHECK(mine.cell.give_back_orphan(mine.rules, generation, due).event == Event::counted);
    CHECK(mine.cell.admit(mine.rules, due).token().is_probe());
}

TEST(a_successor_does_not_own_its_predecessors_probes) {
    Mapped mapped;
    const Segment& segment = mapped.segment;
    const std::int64_t due = 60 * kNsPerSecond;
    const pid_t child = start_child(segment, [&](std::uint32_t its_slot) {
        Shared theirs{segment, 0, its_slot};
        theirs.cell.trip(theirs.rules, 0);
        CHECK(theirs.cell.admit(theirs.rules, due).token().is_probe());
    });
    kill_child(child);
    Shared mine{segment, 0, segment.claim_slot(ProcessOwner::self(), 0, 0)};
    const std::uint64_t generation = mine.cell.load().generation();
    // The successor lives, and settles no probe that it does not hold.
    const Token token{generation, TokenKind::probe};
    const Transition done =
        mine.cell.settle(mine.rules, token, {Verdict::success, false, false}, due);
    CHECK(done.event == Event::stale && mine.cell.load().in_flight() == 1);
    std::uint64_t orphans = 0;
    segment.each_orphaned_probe(0, generation, [&](std::uint64_t probes) { orphans += probes; });
    CHECK(orphans == 1);
}

TEST(probes_of_processes_without_a_slot_go_by_their_lease) {
    Mapped mapped;
    Shared mine{mapped.segment, 0, kOverflowRow};
    const std::int64_t due = 60 * kNsPerSecond;
    mine.cell.trip(mine.rules, 0);
    const Token token = mine.cell.admit(mine.rules, due).token();
    CHECK(token.is_probe());
    mapped.segment.each_orphaned_probe(0, token.generation, [](std::uint64_t) { CHECK(false); });
    mine.cell.settle(mine.rules, token, {Verdict::success, false, false}, due);
    CHECK(mine.cell.load().phase() == Phase::closed);
}

TEST(calls_in_flight_of_the_dead_are_none) {
    Mapped mapped;
    const Segment& segment = mapped.segment;
    const pid_t child = start_child(segment, [&](std::uint32_t slot) {
        Shared{segment, 0, slot}.cell.statistics().begin_flight();
    });
    Shared mine{segment, 0, segment.claim_slot(ProcessOwner::self(), 0, 0)};
    segment.forget_flights_of_the_dead(0);
    CHECK(mine.cell.statistics().in_flight() == 1);
    kill_child(child);
    segment.forget_flights_of_the_dead(0);
    CHECK(mine.cell.statistics().in_flight() == 0);
}

TEST(calls_of_processes_without_a_slot_are_not_in_flight_for_ever) {
    Mapped mapped;
    const pid_t child = start_child(mapped.segment, [&](std::uint32_t) {
        Shared{mapped.segment, 0, kOverflowRow}.cell.statistics().begin_flight();
    });
    kill_child(child);
    Shared mine{mapped.segment, 0, 1};
    CHECK(mine.cell.statistics().in_flight() == 0);
    mine.cell.statistics().begin_flight();
    CHECK(mine.cell.statistics().in_flight() == 1);
}

TEST(failures_of_two_cells_on_one_word_add_up) {
    Mapped mapped;
    Shared one{mapped.segment, 0, 0};
    Shared other{mapped.segment, 0, 1};
    const Token token = one.cell.admit(one.rules, 0).token();
    for (int i = 0; i < 4; ++i) {
        Shared& failing = i % 2 == 0 ? one : other;
        failing.cell.settle(failing.rules, token, {Verdict::failure, false, false}, 0);
    }
    CHECK(other.cell.load().failures() == 4);
    CHECK(one.cell.settle(one.rules, token, {Verdict::failure, false, false}, 0).opened());
    CHECK(other.cell.load().phase() == Phase::open);
    CHECK(other.cell.statistics().totals(0).failures == 5);
}

TEST(rules_come_back_as_they_were_published) {
    const auto rules = std::make_unique<SharedRules>();
    CHECK(rules->read().version == 0 && !rules->read().numbers);
    SharedNumbers numbers;
    numbers.config.failure_threshold = kNoThreshold;
    numbers.config.jitter_mode = Jitter::equal;
    numbers.config.jitter = 0.25;
    numbers.config.lost_probe_fails = true;
    numbers.rates.failure_rate = 0.5;
    numbers.rates.time_window_ns = 30 * kNsPerSecond;
    for (std::uint64_t version = 1; version < 4; ++version) {
        numbers.rates.count_window = static_cast<std::uint32_t>(100 + version);
        CHECK(rules->publish(numbers) == version);
        const SharedRules::Published found = rules->read();
        CHECK(found.version == version && found.numbers);
        CHECK(encode(*found.numbers) == encode(numbers));
    }
}

TEST(numbers_that_no_check_lets_through_are_not_adopted) {
    SharedNumbers numbers;
    CHECK(decode(encode(numbers)));
    RuleWords words = encode(numbers);
    constexpr std::size_t kUsed = 20;
    for (std::size_t i = 0; i < kUsed; ++i) {
        std::uint64_t& word = words[i];
        const std::uint64_t kept = word;
        word = 0x7FF8000000000001;  // a NaN, and a number that is far too large
        CHECK(!decode(words));
        word = ~std::uint64_t{0} >> 1;
        CHECK(!decode(words) || i == 0);  // the threshold: no such rule
        word = kept;
    }
}

TEST(a_note_is_found_by_its_generation_alone) {
    const auto notes = std::make_unique<SharedNotes>();
    Note found;
    SharedNotes::Buffer buffer;
    CHECK(!notes->read(0, found, buffer) && !notes->read_opening(5, found, buffer));
    const std::string long_text(500, 'x');
    notes->write({7, true, Event::failure_rate, 123, 5, "OSError", long_text, "why"});
    notes->write({8, false, Event::timeout, 124, 5, "", "", ""});
    CHECK(notes->read(7, found, buffer) && found.reason == Event::failure_rate);
    CHECK(found.error_type == "OSError" && found.error_text == long_text.substr(0, 160));
    CHECK(found.detail == "why" && found.wall_ns == 123 && found.failure_count == 5);
    CHECK(notes->read_opening(8, found, buffer) && found.generation == 7);
    CHECK(!notes->read(15, found, buffer));
    notes->write({15, false, Event::timeout, 0, 0, "", "", ""});
    CHECK(!notes->read(7, found, buffer));
}

TEST(a_text_is_clipped_between_characters) {
    SharedText<8> text;
    char out[8];
    text.write("1234567\xC3\xA9");  // the last one has two bytes
    CHECK(std::string(out, text.read(out)) == "1234567");
    text.write("12345678");
    CHECK(std::string(out, text.read(out)) == "12345678");
    text.write("");
    CHECK(text.read(out) == 0);
}

TEST(what_a_process_has_learnt_outlives_it_and_its_slots_next_owner_coming) {
    Mapped mapped;
    const Segment& segment = mapped.segment;
    const pid_t child = start_child(segment, [&](std::uint32_t slot) {
        Learnt learnt;
        learnt.state = LearntState::alert;
        learnt.rate_mb_per_hour = 12.0;
        learnt.generation = segment.claim_of(slot);
        segment.slot(slot).learnt.publish(learnt);
    });
    kill_child(child);
    std::uint32_t slot = segment.claim_slot(ProcessOwner::self(), 0, 0);
    while (slot != 0) {  // those of the dead come last
        slot = segment.claim_slot(ProcessOwner::self(), 0, 0);
    }
    const auto found = segment.slot(0).learnt.read();
    CHECK(found && found->rate_mb_per_hour == 12.0 && found->generation == 1);
    CHECK(segment.claim_of(0) == 2);
}

TEST(a_slots_next_owner_goes_on_counting_and_begins_without_the_rest) {
    Mapped mapped;
    const Segment& segment = mapped.segment;
    const ProcessOwner self = ProcessOwner::self();
    SharedWorker& worker = segment.slot(segment.claim_slot(self, 0, 0)).worker;
    worker.begin_worker(3, SharedWorker::Predecessor{2, 9});
    worker.set_state(WorkerState::ready, 7);
    worker.is_over_ceiling.store(1);
    raise_counter(worker.tokens, worker.tokens_base, 11);
    segment.release_slot(0, self);
    CHECK(worker.read_state() == WorkerState::ready);  // what it told outlives it
    CHECK(segment.claim_slot(self, 0, 0) == 0);
    CHECK(worker.read_state() == WorkerState::none && worker.number_plus_1.load() == 0);
    CHECK(worker.is_over_ceiling.load() == 0 && worker.predecessor_plus_1.load() == 0);
    CHECK(worker.tokens.load() == 11 && worker.tokens_base.load() == 11);
}

TEST(history_outlives_its_writer) {
    Mapped mapped;
    const Segment& segment = mapped.segment;
    const pid_t child = start_child(segment, [&](std::uint32_t slot) {
        SharedHistoryRing ring = segment.history(slot);
        for (std::uint64_t i = 0; i < 600; ++i) {
            SharedSample sample;
            sample.sample.rss_bytes = i;
            sample.claim = segment.claim_of(slot);
            ring.push(sample);
        }
    });
    kill_child(child);
    std::uint32_t slot = segment.claim_slot(ProcessOwner::self(), 0, 0);
    while (slot != 0) {  // those of the dead come last
        slot = segment.claim_slot(ProcessOwner::self(), 0, 0);
    }
    SharedHistoryRing ring = segment.history(slot);
    SharedSample mine;
    mine.sample.rss_bytes = 600;
    mine.claim = segment.claim_of(slot);
    ring.push(mine);
    const auto out = std::make_unique<SharedSample[]>(kHistorySamples);
    const RingRange range = ring.snapshot(out.get(), kHistorySamples);
    CHECK(range.count == kHistorySamples && range.end == 601);
    for (std::size_t i = 0; i < range.count; ++i) {
        CHECK(out[i].sample.rss_bytes == 601 - kHistorySamples + i);
        CHECK(out[i].claim == (i + 1 == range.count ? 2 : 1));
    }
}
