// What a worker tells: counters that never fall, and gauges of one owner.
#include "check.hpp"

#include <memory>  // std::make_unique
#include <thread>  // std::jthread
#include <vector>  // std::vector

#include "memguard/shared_worker.hpp"

using namespace memguard;

TEST(a_counter_is_raised_to_the_total_and_never_set_back) {
    SharedWord counter{7};
    const SharedWord base{7};
    raise_counter(counter, base, 5);
    CHECK(counter.load() == 12);
    raise_counter(counter, base, 5);
    raise_counter(counter, base, 3);
    CHECK(counter.load() == 12);
}

TEST(a_counter_that_a_stranger_wrote_ends_no_writer_and_does_not_overflow) {
    SharedWord counter{~std::uint64_t{0}};
    const SharedWord base{~std::uint64_t{0} - 1};
    raise_counter(counter, base, 100);
    CHECK(counter.load() == ~std::uint64_t{0});
}

TEST(of_many_writers_the_largest_total_stays) {
    SharedWord counter{0};
    const SharedWord base{0};
    constexpr std::uint64_t kTotals = 20'000;
    {
        std::vector<std::jthread> writers;
        for (std::uint64_t first = 1; first <= 3; ++first) {
            writers.emplace_back([&, first] {
                std::uint64_t seen = 0;
                for (std::uint64_t total = first; total <= kTotals; total += 3) {
                    raise_counter(counter, base, total);
                    const std::uint64_t now = counter.load();
                    CHECK(now >= seen && now >= total);
                    seen = now;
                }
            });
        }
    }
    CHECK(counter.load() == kTotals);
}

TEST(a_worker_begins_with_its_number_and_nothing_that_was_told_before) {
    const auto worker = std::make_unique<SharedWorker>();
    worker->private_bytes.store(1);
    worker->own_bytes.store(1);
    worker->connections.store(1);
    worker->loop_heartbeat_ns.store(1);
    worker->forecast_deadline_ns.store(1);
    worker->is_over_ceiling.store(1);
    worker->ready_wall_ns.store(1);
    worker->inputs.store(5);
    worker->begin_worker(0, SharedWorker::Predecessor{31, 4});
    CHECK(worker->read_state() == WorkerState::starting && worker->number_plus_1.load() == 1);
    CHECK(worker->predecessor_plus_1.load() == 32 && worker->predecessor_claim.load() == 4);
    CHECK(worker->private_bytes.load() == 0 && worker->own_bytes.load() == 0);
    CHECK(worker->connections.load() == 0 && worker->loop_heartbeat_ns.load() == 0);
    CHECK(worker->forecast_deadline_ns.load() == 0 && worker->is_over_ceiling.load() == 0);
    CHECK(worker->ready_wall_ns.load() == 0 && worker->inputs.load() == 5);
    worker->begin_worker(7, std::nullopt);
    CHECK(worker->number_plus_1.load() == 8 && worker->predecessor_plus_1.load() == 0);
    CHECK(worker->predecessor_claim.load() == 0);
}

TEST(the_time_when_it_became_ready_stays_while_it_drains) {
    const auto worker = std::make_unique<SharedWorker>();
    worker->set_state(WorkerState::warming, 1);
    CHECK(worker->ready_wall_ns.load() == 0);
    worker->set_state(WorkerState::ready, 2);
    worker->set_state(WorkerState::draining, 3);
    CHECK(worker->ready_wall_ns.load() == 2 && worker->read_state() == WorkerState::draining);
}

TEST(a_state_that_is_none_is_read_as_none) {
    const auto worker = std::make_unique<SharedWorker>();
    CHECK(worker->read_state() == WorkerState::none);
    worker->state.store(5);
    CHECK(worker->read_state() == WorkerState::ended);
    worker->state.store(6);
    CHECK(worker->read_state() == WorkerState::none);
}
