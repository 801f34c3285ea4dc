#include "check.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include "memguard/process.hpp"

using namespace memguard;

namespace {

// What `body` returned in the child of a fork.
template <class Body>
std::uint64_t in_child(Body body) {
    const ::pid_t child = ::fork();
    if (child == 0) {
        ::_exit(static_cast<int>(body()));
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return static_cast<std::uint64_t>(WEXITSTATUS(status));
}

}  // namespace

TEST(every_generation_of_forks_has_its_number) {
    const std::uint64_t own = fork_epoch();
    CHECK(in_child([] { return fork_epoch(); }) == own + 1);
    CHECK(in_child([] { return in_child([] { return fork_epoch(); }); }) == own + 2);
}

TEST(parent_keeps_its_number) {
    const std::uint64_t before = fork_epoch();
    CHECK(in_child([] { return std::uint64_t{0}; }) == 0);
    CHECK(fork_epoch() == before);
}
