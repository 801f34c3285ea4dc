#include "check.hpp"

#include "memguard/proc_text.hpp"

using namespace memguard;

TEST(number_is_read_after_blanks) {
    CHECK(number_in(" \t 12 kB") == 12U);
    CHECK(number_in("7") == 7U);
    for (const char* text : {"", "  ", "x", "-1", "max", "99999999999999999999"}) {
        CHECK(!number_in(text).has_value());
    }
}

TEST(number_is_found_by_the_whole_name) {
    constexpr auto kText = "anon_thp 5\nanon 7\nanon 8\n";
    CHECK(number_of(kText, "anon") == 7U);
    CHECK(!number_of(kText, "ano").has_value());
    CHECK(!number_of(kText, "shmem").has_value());
}

TEST(line_without_its_end_is_not_taken) {
    CHECK(number_of("max 1\noom 12", "max") == 1U);
    CHECK(!number_of("max 1\noom 12", "oom").has_value());
}

TEST(name_without_a_number_is_none) {
    CHECK(!number_of("max\nmax \n", "max").has_value());
}
