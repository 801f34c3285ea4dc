// The few lines of test harness that the core's tests need: TEST registers, CHECK reports, main
// runs.
#pragma once

#include <cstdio>   // std::fprintf
#include <cstring>  // std::strstr
#include <vector>   // std::vector

namespace memguard::test {

struct Case {
    const char* name;
    void (*run)();
};

inline std::vector<Case>& cases() {
    static std::vector<Case> all;
    return all;
}

inline int& failures() {
    static int count = 0;
    return count;
}

struct Register {
    Register(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

}  // namespace memguard::test

#define TEST(name)                                                                                 \
    static void name();                                                                            \
    static const ::memguard::test::Register register_##name{#name, &name};                         \
    static void name()

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition);     \
            ++::memguard::test::failures();                                                        \
        }                                                                                          \
    } while (false)

// An optional argument selects the cases whose name contains it.
int main(int argc, char** argv) {
    for (const auto& test : memguard::test::cases()) {
        if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) {
            continue;
        }
        const int before = memguard::test::failures();
        test.run();
        std::printf("%s %s\n", memguard::test::failures() == before ? "ok  " : "FAIL", test.name);
    }
    return memguard::test::failures() == 0 ? 0 : 1;
}
