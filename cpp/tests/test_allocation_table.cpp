#include "check.hpp"

#include <atomic>
#include <cmath>
#include <memory>
#include <random>
#include <thread>
#include <unordered_map>
#include <vector>

#include "memguard/allocation_table.hpp"

using namespace memguard;

namespace {

constexpr std::int64_t kNever = std::int64_t{1} << 62;
constexpr AllocationStack kStack{};

const void* block_at(std::uintptr_t address) {
    return reinterpret_cast<const void*>(address);
}

std::unique_ptr<AllocationTable> started(std::uint64_t interval_bytes = 1) {
    auto table = std::make_unique<AllocationTable>();
    CHECK(table->start(interval_bytes, kNever, 1));
    return table;
}

double live_weight(AllocationTable& table) {
    double sum = 0.0;
    CHECK(table.for_each([&](const AllocationSample& sample) { sum += sample.weight_bytes; }));
    return sum;
}

// What an allocator with this table does for a block of this size.
void allocate(AllocationTable& table, std::uintptr_t address, std::size_t size) {
    if (table.due(size)) {
        table.next_mark();
        (void)table.add(block_at(address), size, 0, kStack);
    }
}

void release(AllocationTable& table, std::uintptr_t address) {
    if (table.may_hold(block_at(address))) {
        table.remove(block_at(address));
    }
}

}  // namespace

TEST(table_that_was_never_started_samples_nothing) {
    const auto table = std::make_unique<AllocationTable>();
    CHECK(!table->is_on() && !table->may_hold(&table));
    (void)table->due(1);
    table->next_mark();
    CHECK(!table->due(1'000'000'000));
}

TEST(sample_is_kept_until_its_block_is_released) {
    const auto table = started();
    AllocationStack stack;
    stack.push({7, 12});
    CHECK(table->add(block_at(4096), 100, 5, stack));
    CHECK(table->live() == 1 && table->may_hold(block_at(4096)));
    CHECK(table->for_each([](const AllocationSample& sample) {
        CHECK(sample.address == 4096 && sample.size_bytes == 100 && sample.at_ns == 5);
        CHECK(sample.stack.depth == 1 && sample.stack.frames[0].code == 7);
    }));
    table->remove(block_at(4096));
    CHECK(table->live() == 0 && !table->may_hold(block_at(4096)));
}

TEST(block_that_was_never_sampled_is_released_without_a_trace) {
    const auto table = started();
    CHECK(table->add(block_at(4096), 1, 0, kStack));
    CHECK(!table->may_hold(block_at(8192)));
    table->remove(block_at(8192));
    CHECK(table->live() == 1);
}

TEST(null_is_no_block) {
    const auto table = started();
    CHECK(table->add(block_at(4096), 1, 0, kStack));
    CHECK(!table->may_hold(nullptr));
    table->remove(nullptr);
    CHECK(table->live() == 1 && table->may_hold(block_at(4096)));
}

TEST(address_that_is_sampled_again_replaces_what_was_there) {
    const auto table = started();
    CHECK(table->add(block_at(4096), 100, 0, kStack));
    CHECK(table->add(block_at(4096), 7, 0, kStack));
    CHECK(table->live() == 1);
    CHECK(table->for_each([](const AllocationSample& sample) { CHECK(sample.size_bytes == 7); }));
}

TEST(full_table_refuses_new_samples_and_knows_the_old_ones) {
    const auto table = started();
    for (std::uintptr_t i = 1; i <= AllocationTable::kMostSamples; ++i) {
        CHECK(table->add(block_at(16 * i), 1, 0, kStack));
    }
    CHECK(table->add(block_at(16), 2, 0, kStack));
    CHECK(!table->add(block_at(8), 1, 0, kStack));
    CHECK(table->live() == AllocationTable::kMostSamples && table->may_hold(block_at(32)));
    release(*table, 32);
    CHECK(table->add(block_at(8), 1, 0, kStack));
}

TEST(table_agrees_with_a_map_after_a_million_blocks) {
    const auto table = started();
    std::unordered_map<std::uintptr_t, std::size_t> model;
    std::mt19937_64 random{20261124};
    for (int i = 0; i < 1'000'000; ++i) {
        // Few addresses, so that they come again; in steps of 16, as blocks have.
        const std::uintptr_t address = 16 * (1 + random() % 6000);
        if (model.contains(address)) {
            CHECK(table->may_hold(block_at(address)));
            table->remove(block_at(address));
            model.erase(address);
        } else if (model.size() < AllocationTable::kMostSamples) {
            CHECK(!table->may_hold(block_at(address)));
            const std::size_t size = random() % 1000;
            CHECK(table->add(block_at(address), size, 0, kStack));
            model[address] = size;
        }
        CHECK(table->live() == model.size());
    }
    CHECK(table->for_each([&](const AllocationSample& sample) {
        CHECK(model.contains(sample.address) && model[sample.address] == sample.size_bytes);
    }));
}

TEST(weights_add_up_to_the_bytes_that_are_alive_whatever_the_sizes) {
    for (const std::size_t size : {std::size_t{48}, std::size_t{4'000}, std::size_t{300'000}}) {
        const auto table = started(64 * 1024);
        const std::size_t blocks = 100'000'000 / size;
        for (std::size_t i = 1; i <= blocks; ++i) {
            allocate(*table, 16 * i, size);
            if (i % 2 == 0) {
                release(*table, 16 * i);
            }
        }
        const double alive = static_cast<double>((blocks + 1) / 2 * size);
        // About 760 marks, half of them alive: 4 standard deviations are 21 %.
        CHECK(std::abs(live_weight(*table) / alive - 1.0) < 0.21);
    }
}

TEST(block_larger_than_the_interval_weighs_what_it_is) {
    const auto table = started(1024);
    CHECK(table->add(block_at(16), 1'000'000, 0, kStack));
    CHECK(std::abs(live_weight(*table) - 1'000'000.0) < 1.0);
}

TEST(blocks_in_step_with_the_interval_are_not_all_sampled_nor_all_missed) {
    const auto table = started(1000);
    for (std::uintptr_t i = 1; i <= 4000; ++i) {
        allocate(*table, 32 * i, 10);        // 1 % of the bytes
        allocate(*table, 32 * i + 16, 990);  // 99 %
    }
    std::size_t small = 0;
    CHECK(
        table->for_each([&](const AllocationSample& sample) { small += sample.size_bytes == 10; }));
    CHECK(small > 10 && small < 100);
}

TEST(stopped_table_takes_no_sample_and_still_gives_up_old_ones) {
    const auto table = started();
    CHECK(table->add(block_at(16), 1, 0, kStack));
    table->stop();
    CHECK(table->due(1'000'000));
    table->next_mark();
    CHECK(!table->due(1'000'000'000));
    release(*table, 16);
    CHECK(table->live() == 0);
}

TEST(table_ends_by_itself_when_time_is_up) {
    const auto table = std::make_unique<AllocationTable>();
    CHECK(table->start(1, 100, 1));
    CHECK(!table->has_ended(99) && table->is_on());
    CHECK(table->has_ended(100) && !table->is_on());
}

TEST(woken_table_asks_for_the_next_block_whatever_its_size) {
    const auto table = started(1u << 30);
    CHECK(!table->due(0));
    table->wake();
    CHECK(table->due(0));
}

TEST(start_empties_the_table) {
    const auto table = started();
    CHECK(table->add(block_at(16), 1, 0, kStack));
    table->stop();
    CHECK(table->start(1, kNever, 2) && table->live() == 0 && !table->may_hold(block_at(16)));
}

TEST(table_in_use_is_left_alone_and_forget_makes_it_free) {
    const auto table = started();
    CHECK(table->for_each([](const AllocationSample&) {}));
    CHECK(table->add(block_at(16), 1, 0, kStack));
    CHECK(table->for_each([&](const AllocationSample&) {
        // A thread that is in the table at the instant of a fork is not there in the child.
        CHECK(!table->add(block_at(32), 1, 0, kStack));
        CHECK(!table->start(1, kNever, 1));
        table->remove(block_at(16));
        CHECK(table->live() == 1);
        table->forget();
    }));
    CHECK(!table->is_on() && table->live() == 0);
    CHECK(table->start(1, kNever, 1) && table->add(block_at(32), 1, 0, kStack));
}

TEST(threads_without_a_common_lock_do_no_harm) {
    const auto table = started(64);
    std::atomic<bool> done{false};
    const auto work = [&](std::uintptr_t first) {
        for (int turn = 0; turn < 200; ++turn) {
            for (std::uintptr_t i = 0; i < 100; ++i) {
                allocate(*table, first + 16 * i, 32);
            }
            for (std::uintptr_t i = 0; i < 100; ++i) {
                release(*table, first + 16 * i);
            }
        }
    };
    std::thread starter{[&] {
        while (!done.load()) {
            (void)table->start(64, kNever, 3);
            (void)table->for_each(
                [](const AllocationSample& sample) { CHECK(sample.size_bytes == 32); });
        }
    }};
    std::vector<std::thread> threads;
    for (std::uintptr_t i = 1; i <= 3; ++i) {
        threads.emplace_back(work, i << 20);
    }
    for (auto& thread : threads) {
        thread.join();
    }
    done.store(true);
    starter.join();
    CHECK(table->live() <= AllocationTable::kMostSamples);
}
