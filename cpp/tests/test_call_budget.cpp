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
    CHECK(samples_until_due(after_a_call_of(200'000)) == 1);
}

TEST(call_over_200_us_is_made_for_every_10th_sample) {
    CHECK(samples_until_due(after_a_call_of(200'001)) == 10);
    CHECK(samples_until_due(after_a_call_of(2'000'000)) == 10);
}

TEST(call_over_2_ms_is_made_for_every_60th_sample) {
    CHECK(samples_until_due(after_a_call_of(2'000'001)) == 60);
    CHECK(samples_until_due(after_a_call_of(10'000'000)) == 60);
}

TEST(call_over_10_ms_is_not_made_again) {
    CHECK(samples_until_due(after_a_call_of(10'000'001)) == 0);
}

TEST(call_that_became_cheap_is_made_for_every_sample_again) {
    CallBudget budget = after_a_call_of(3'000'000);
    while (!budget.due()) {
    }
    budget.record(500);
    CHECK(samples_until_due(budget) == 1);
}
