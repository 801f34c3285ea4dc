#include "check.hpp"

#include <memory>
#include <thread>
#include <vector>

#include "memguard/sources.hpp"

using namespace memguard;

TEST(gauge_that_was_never_set_is_unknown) {
    CHECK(!LoadGauge{}.value().has_value());
}

TEST(gauge_has_the_value_that_was_set_last) {
    LoadGauge gauge;
    gauge.set(5.0);
    gauge.set(0.0);
    CHECK(gauge.value() == 0.0);
}

TEST(gauge_adds_from_nothing) {
    LoadGauge gauge;
    gauge.add(2.0);
    gauge.add(-0.5);
    CHECK(gauge.value() == 1.5);
}

TEST(gauge_loses_no_addition_of_any_thread) {
    LoadGauge gauge;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            for (int n = 0; n < 20'000; ++n) {
                gauge.add(1.0);
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(gauge.value() == 80'000.0);
}

TEST(arenas_are_unknown_before_the_count_is_complete) {
    ArenaCounter arenas;
    arenas.add(100);
    CHECK(!arenas.bytes().has_value());
    arenas.begin_with(1000);
    CHECK(arenas.bytes() == 1100);
}

TEST(arena_older_than_the_count_is_subtracted_when_it_goes) {
    ArenaCounter arenas;
    arenas.begin_with(1000);
    arenas.add(-400);
    CHECK(arenas.bytes() == 600);
}

TEST(sources_that_are_not_there_leave_their_fields_unknown) {
    MemorySample sample;
    SampleSources{}.read_into(sample);
    CHECK(sample.valid == 0);
}

TEST(sources_fill_load_and_arenas) {
    const auto load = std::make_shared<LoadGauge>();
    load->set(7.0);
    ArenaCounter arenas;
    arenas.begin_with(64);
    MemorySample sample;
    SampleSources{load, &arenas}.read_into(sample);
    CHECK(sample.has(SampleField::load) && sample.load == 7.0);
    CHECK(sample.has(SampleField::python_arenas) && sample.python_arena_bytes == 64);
}
