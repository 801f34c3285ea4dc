// A cell and the rules that its calls go by.
#pragma once

#include <memory>  // std::make_shared

#include "memguard/breaker.hpp"

struct Circuit {
    explicit Circuit(const memguard::BreakerConfig& config = {}) : rules{config, {}, nullptr} {}
    Circuit(const memguard::BreakerConfig& config, const memguard::WindowConfig& rates)
        : rules{config, rates, std::make_shared<memguard::Windows>(rates, true)} {}

    memguard::Admission admit(std::int64_t now_ns) { return cell.admit(rules, now_ns); }
    memguard::Transition settle(memguard::Token token, memguard::Verdict verdict,
                                std::int64_t now_ns, bool slow = false,
                                memguard::AskedWait asked = {}) {
        return cell.settle(rules, token, {verdict, slow, false}, now_ns, asked);
    }
    void trip(std::int64_t now_ns) { cell.trip(rules, now_ns); }
    [[nodiscard]] memguard::Phase phase(std::int64_t now_ns) const {
        return cell.phase(rules.config, now_ns);
    }
    [[nodiscard]] std::int64_t retry_after_ns(std::int64_t now_ns) const {
        return cell.retry_after_ns(rules.config, now_ns);
    }

    memguard::Rules rules;
    memguard::BreakerCell cell;
};
