// What a process leaves for its successor: written in one step, and read as if by a stranger.
#include "check.hpp"

#include <sys/mman.h>  // mmap
#include <sys/wait.h>  // waitpid
#include <unistd.h>    // fork, _exit

#include <atomic>    // std::atomic
#include <cmath>     // std::nan
#include <iterator>  // std::size
#include <limits>    // std::numeric_limits
#include <memory>    // std::make_unique
#include <new>       // placement new
#include <thread>    // std::jthread

#include "memguard/shared_learnt.hpp"

using namespace memguard;

namespace {

Learnt some_learnt() {
    Learnt learnt;
    learnt.state = LearntState::alert;
    learnt.cause = LearntCause::native_heap;
    learnt.rate_mb_per_hour = 23.5;
    learnt.baseline_mb = 80.0;
    learnt.requests = 12345;
    learnt.wall_ns = 7;
    learnt.generation = 2;
    learnt.pid = 4711;
    return learnt;
}

}  // namespace

TEST(what_was_learnt_comes_back_as_it_was_published) {
    const auto shared = std::make_unique<SharedLearnt>();
    CHECK(!shared->read());
    for (std::uint64_t generation = 1; generation < 4; ++generation) {
        Learnt learnt = some_learnt();
        learnt.generation = generation;
        shared->publish(learnt);
        const auto found = shared->read();
        CHECK(found && encode(*found) == encode(learnt));
        CHECK(found->generation == generation && found->requests == 12345U);
        CHECK(!found->mb_per_load && !found->warm_up_minutes);
    }
}

TEST(a_number_that_no_process_can_have_learnt_makes_all_of_it_none) {
    const double amounts[] = {-1.0, std::nan(""), std::numeric_limits<double>::infinity(),
                              -std::numeric_limits<double>::infinity(), 1e13};
    const std::optional<double> Learnt::* const fields[] = {
        &Learnt::rate_mb_per_hour, &Learnt::mb_per_1000_requests, &Learnt::mb_per_load,
        &Learnt::baseline_mb,      &Learnt::retained_mb,          &Learnt::warm_up_minutes};
    for (const double amount : amounts) {
        for (const auto field : fields) {
            Learnt learnt = some_learnt();
            const_cast<std::optional<double>&>(learnt.*field) = amount;
            CHECK(!decode_learnt(encode(learnt)));
        }
    }
    constexpr std::size_t kState = 0;
    constexpr std::size_t kCause = 1;
    constexpr std::size_t kRequests = 8;
    constexpr std::size_t kWallNs = 9;
    constexpr std::size_t kGeneration = 10;
    const LearntWords legal = encode(some_learnt());
    CHECK(decode_learnt(legal));
    const auto is_legal_with = [&](std::size_t index, std::uint64_t word) {
        LearntWords words = legal;
        words[index] = word;
        return decode_learnt(words).has_value();
    };
    CHECK(is_legal_with(kState, 3) && !is_legal_with(kState, 4));
    CHECK(!is_legal_with(kState, ~std::uint64_t{0}));
    CHECK(is_legal_with(kCause, 5) && !is_legal_with(kCause, 6));
    CHECK(is_legal_with(kRequests, ~std::uint64_t{0}));  // not known
    CHECK(!is_legal_with(kRequests, ~std::uint64_t{0} - 1));
    CHECK(!is_legal_with(kWallNs, std::uint64_t{1} << 63));
    CHECK(!is_legal_with(kGeneration, 0));
}

TEST(each_code_has_its_name) {
    CHECK(std::size(kLearntStates) == static_cast<std::size_t>(LearntState::alert) + 1);
    CHECK(std::size(kLearntCauses) == static_cast<std::size_t>(LearntCause::shared_memory) + 1);
}

TEST(a_writer_that_is_killed_half_way_leaves_the_record_as_it_was) {
    using Words = PublishedWords<kLearntWords>;
    void* const bytes =
        ::mmap(nullptr, sizeof(Words), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(bytes != MAP_FAILED);
    auto* const shared = new (bytes) Words;
    Words::Record before{};
    before.fill(1);
    shared->publish(before);
    // As publish() does, up to the switch: the copy that is not in use lies where the next version
    // goes, behind the version and the first copy.
    const pid_t child = ::fork();
    if (child == 0) {
        auto* const words = static_cast<std::atomic<std::uint64_t>*>(bytes);
        for (std::size_t i = 0; i < kLearntWords / 2; ++i) {
            words[1 + i].store(2);
        }
        ::_exit(0);
    }
    CHECK(::waitpid(child, nullptr, 0) == child);
    const auto found = shared->read();
    CHECK(found && found->version == 1 && found->words == before);
    Words::Record after{};
    after.fill(3);
    CHECK(shared->publish(after) == 2);
    CHECK(shared->read()->words == after);
    ::munmap(bytes, sizeof(Words));
}

TEST(a_reader_never_sees_the_words_of_two_publications) {
    const auto shared = std::make_unique<PublishedWords<kLearntWords>>();
    shared->publish({});
    std::atomic<bool> is_over{false};
    std::jthread writer{[&] {
        for (std::uint64_t i = 1; !is_over.load(); ++i) {
            PublishedWords<kLearntWords>::Record words{};
            words.fill(i);
            shared->publish(words);
        }
    }};
    for (int look = 0; look < 2000; ++look) {
        // None where it was overtaken again and again.
        if (const auto found = shared->read()) {
            for (const std::uint64_t word : found->words) {
                CHECK(word == found->words[0]);
            }
        }
    }
    is_over.store(true);
}
