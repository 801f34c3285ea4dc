// What people see of a breaker, as Python objects: of one of this process, or read from a segment.
#pragma once

#include <pybind11/pybind11.h>

#include "memguard/breaker.hpp"
#include "memguard/shared_rules.hpp"
#include "seconds.hpp"

namespace memguard {

// A breaker, the rules by which it is seen, and the time.
struct CellView {
    const BreakerCell& cell;
    const Rules& rules;
    std::int64_t now_ns;
};

// The State that a call meets.
[[nodiscard]] const char* state_name(const CellView& view) noexcept;

// Seconds until a call may be admitted; 0.0 if one may now.
[[nodiscard]] double retry_after(const CellView& view) noexcept;

// Everything that is known now, by name. `details`: as Breaker::details() says.
[[nodiscard]] pybind11::dict snapshot_of(const CellView& view, const pybind11::object& details);

// The numbers of rules by the names of BreakerConfig, and enforce_by_auto.
[[nodiscard]] pybind11::dict to_dict(const SharedNumbers& numbers);

}  // namespace memguard
