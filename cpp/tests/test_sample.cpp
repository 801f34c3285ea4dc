#include "check.hpp"

#include "memguard/sample.hpp"

using namespace memguard;

TEST(fresh_sample_has_no_valid_field) {
    constexpr MemorySample sample;
    CHECK(sample.valid == 0);
    CHECK(!sample.has(SampleField::rss));
}

TEST(marked_field_is_valid_and_no_other) {
    MemorySample sample;
    sample.mark(SampleField::shmem);
    for (const SampleField other : {SampleField::rss, SampleField::anon, SampleField::file,
                                    SampleField::swap, SampleField::threads, SampleField::malloc}) {
        CHECK(!sample.has(other));
    }
    CHECK(sample.has(SampleField::shmem));
}
