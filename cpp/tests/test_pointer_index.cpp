#include "check.hpp"

#include <memory>
#include <vector>

#include "memguard/pointer_index.hpp"

using namespace memguard;

TEST(pointers_are_numbered_in_order_of_arrival) {
    PointerIndex<8> index;
    const int things[3] = {};
    for (std::uint32_t i = 0; i < 3; ++i) {
        const auto found = index.find_or_add(&things[i]);
        CHECK(found.number == i && found.is_new);
    }
    CHECK(index.size() == 3 && index[1] == &things[1]);
}

TEST(known_pointer_keeps_its_number) {
    PointerIndex<8> index;
    const int things[2] = {};
    (void)index.find_or_add(&things[0]);
    (void)index.find_or_add(&things[1]);
    const auto found = index.find_or_add(&things[0]);
    CHECK(found.number == 0 && !found.is_new && index.size() == 2);
}

TEST(full_index_knows_the_old_and_takes_no_new_ones) {
    auto index = std::make_unique<PointerIndex<1024>>();
    std::vector<std::uint64_t> things(1025);
    for (std::size_t i = 0; i < 1024; ++i) {
        CHECK(index->find_or_add(&things[i]).number == i);
    }
    const auto refused = index->find_or_add(&things[1024]);
    CHECK(refused.number == PointerIndex<1024>::kFull && !refused.is_new);
    for (std::size_t i = 0; i < 1024; ++i) {
        CHECK(index->find_or_add(&things[i]).number == i);
    }
}

TEST(cleared_index_is_empty) {
    PointerIndex<8> index;
    const int thing = 0;
    (void)index.find_or_add(&thing);
    index.clear();
    CHECK(index.size() == 0 && index.find_or_add(&thing).is_new);
}
