#include "check.hpp"

#include <cstring>
#include <string>
#include <vector>

#include "memguard/allocator_trim.hpp"

using namespace memguard;

namespace {

std::vector<std::string> calls;
int answer_of_glibc = 1;
int answer_of_jemalloc = 0;

int fake_malloc_trim(std::size_t pad) {
    calls.push_back("malloc_trim " + std::to_string(pad));
    return answer_of_glibc;
}

int fake_mallctl(const char* name, void*, std::size_t*, void*, std::size_t) {
    calls.push_back(name);
    return answer_of_jemalloc;
}

void fake_mi_collect(bool force) {
    calls.push_back(force ? "mi_collect true" : "mi_collect false");
}

// A process with these functions and no others.
std::optional<bool> trim_with(const std::vector<std::string>& names) {
    calls.clear();
    return trim_allocators([&](const char* name) -> void* {
        for (const auto& known : names) {
            if (known != name) {
                continue;
            }
            if (known == "malloc_trim") {
                return reinterpret_cast<void*>(&fake_malloc_trim);
            }
            return known == "mallctl" ? reinterpret_cast<void*>(&fake_mallctl)
                                      : reinterpret_cast<void*>(&fake_mi_collect);
        }
        return nullptr;
    });
}

}  // namespace

TEST(without_such_an_allocator_there_is_no_answer) {
    CHECK(trim_with({}) == std::nullopt && calls.empty());
}

TEST(glibc_tells_whether_it_gave_memory_back) {
    answer_of_glibc = 1;
    CHECK(trim_with({"malloc_trim"}) == true);
    answer_of_glibc = 0;
    CHECK(trim_with({"malloc_trim"}) == false);
    CHECK(calls == std::vector<std::string>{"malloc_trim 0"});
}

TEST(jemalloc_is_asked_to_purge_all_arenas) {
    answer_of_jemalloc = 0;
    CHECK(trim_with({"mallctl"}) == true);
    CHECK(calls == std::vector<std::string>{"arena.4096.purge"});
    answer_of_jemalloc = 2;  // ENOENT: before jemalloc 5 that number is an arena like any other
    CHECK(trim_with({"mallctl"}) == false);
}

TEST(mimalloc_is_asked_to_collect_by_force) {
    CHECK(trim_with({"mi_collect"}) == true);
    CHECK(calls == std::vector<std::string>{"mi_collect true"});
}

TEST(all_that_are_there_are_asked_and_one_that_gave_back_is_enough) {
    answer_of_glibc = 0;
    answer_of_jemalloc = 0;
    CHECK(trim_with({"malloc_trim", "mallctl"}) == true);
    CHECK(calls.size() == 2);
}

TEST(this_process_can_be_asked) {
#if defined(__GLIBC__)
    CHECK(trim_allocators().has_value());
#endif
}
