// SampleSources: what a probe reads at the instant of a sample that others keep up to date.
#pragma once

#include <memory>  // std::shared_ptr

#include "memguard/arena_counter.hpp"
#include "memguard/load_gauge.hpp"
#include "memguard/sample.hpp"

namespace memguard {

struct SampleSources {
    std::shared_ptr<const LoadGauge> load;  // null: unknown
    const ArenaCounter* arenas = nullptr;   // null: unknown; else outlives every probe

    void read_into(MemorySample& sample) const noexcept {
        if (const auto in_flight = load ? load->value() : std::nullopt) {
            sample.load = *in_flight;
            sample.mark(SampleField::load);
        }
        if (const auto bytes = arenas != nullptr ? arenas->bytes() : std::nullopt) {
            sample.python_arena_bytes = *bytes;
            sample.mark(SampleField::python_arenas);
        }
    }
};

}  // namespace memguard
