// Requests: how many, and how many of them are in flight.
#include "check.hpp"

#include <sys/wait.h>  // waitpid
#include <unistd.h>    // fork, _exit

#include <thread>  // std::jthread
#include <vector>  // std::vector

#include "memguard/request_counter.hpp"

using namespace memguard;

TEST(a_request_is_counted_once_and_in_flight_until_its_end) {
    const auto load = std::make_shared<LoadGauge>();
    RequestCounter requests{load};
    CHECK(!requests.count() && !load->value() && requests.ended_ns() == 0);
    const std::uint64_t first = requests.begin();
    const std::uint64_t second = requests.begin();
    CHECK(requests.count() == 2U && load->value() == 2.0);
    requests.end(first);
    CHECK(load->value() == 1.0 && requests.ended_ns() > 0);
    requests.end(second);
    CHECK(requests.count() == 2U && load->value() == 0.0);
}

TEST(requests_that_were_served_elsewhere_are_not_in_flight) {
    const auto load = std::make_shared<LoadGauge>();
    RequestCounter requests{load};
    requests.add(41);
    CHECK(requests.count() == 41U && !load->value());
}

TEST(no_request_of_many_threads_is_lost) {
    const auto load = std::make_shared<LoadGauge>();
    RequestCounter requests{load};
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&] {
                for (int k = 0; k < 10'000; ++k) {
                    requests.end(requests.begin());
                }
            });
        }
    }
    CHECK(requests.count() == 40'000U && load->value() == 0.0);
}

TEST(a_request_that_was_begun_before_a_fork_does_not_end_in_the_child) {
    const auto load = std::make_shared<LoadGauge>();
    RequestCounter requests{load};
    const std::uint64_t begun = requests.begin();
    const pid_t child = ::fork();
    if (child == 0) {
        requests.reset();
        load->set(0.0);
        requests.end(begun);
        const bool is_right = load->value() == 0.0 && !requests.count();
        ::_exit(is_right ? 0 : 1);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child && status == 0);
    requests.end(begun);
    CHECK(load->value() == 0.0);
}
