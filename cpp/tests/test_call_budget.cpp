#include "check.hpp"

#include "memguard/call_budget.hpp"

using namespace memguard;

namespace {

// The number of samples up to and including the next call; 0: none among the next 1000.
int samples_until_due(CallBudget budget) {
    for (int i = 1; i <= 1000; ++i) {
        if (budget.due()) {
            return i;
        }
    }
    return 0;
}

CallBudget after_a_call_of(std::int64_t cost_ns) {
    CallBudget budget;
    budget.record(cost_ns);
    return budget;
}

}  // namespace

TEST(first_call_is_due_at_once) {
    CHECK(samples_until_due(CallBudget{}) == 1);
}

TEST(cheap_call_is_made_for_every_sample) {
    CHECK(samples_until_due(after_a_call_of(170)) == 1);
    CHECK(samples_until_due(after_a_call_of(100'000)) == 1);
}

TEST(call_over_100_us_is_made_for_every_10th_sample) {
    CHECK(samples_until_due(after_a_call_of(100'001)) == 10);
    CHECK(samples_until_due(after_a_call_of(1'000'000)) == 10);
}

TEST(call_over_1_ms_is_made_for_every_60th_sample) {
    CHECK(samples_until_due(after_a_call_of(1'000'001)) == 60);
    CHECK(samples_until_due(after_a_call_of(6'000'000)) == 60);
}

TEST(call_over_6_ms_is_not_made_again) {
    CHECK(samples_until_due(after_a_call_of(6'000'001)) == 0);
}

TEST(call_that_became_cheap_is_made_for_every_sample_again) {
    CallBudget budget = after_a_call_of(3'000'000);
    while (!budget.due()) {
    }
    budget.record(500);
    CHECK(samples_until_due(budget) == 1);
}

TEST(no_cost_of_a_call_comes_to_more_than_100_us_a_sample) {
    for (std::int64_t cost_ns = 1000; cost_ns <= 6'000'000; cost_ns += 1000) {
        CHECK(cost_ns / samples_until_due(after_a_call_of(cost_ns)) <= 100'000);
    }
}
