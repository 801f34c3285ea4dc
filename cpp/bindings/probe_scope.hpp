// Which code runs inside a probe: calls that it makes through the same breaker are nested, not
// rejected. Known by a ContextVar, so by task or thread.
#pragma once

#include "breaker.hpp"

namespace memguard {

// Marks the running code as part of a probe. Returns what leave_scope() takes; null for other
// calls. Never raises; an error set stays set.
[[nodiscard]] PyObject* enter_scope(const ModuleState& state, const Breaker& breaker,
                                    Token token) noexcept;
void leave_scope(const ModuleState& state, PyObject*& scope) noexcept;

// Raises py::error_already_set.
[[nodiscard]] bool inside_probe(const ModuleState& state, const Breaker& breaker, Word word);

class ProbeScope {
  public:
    ProbeScope(const ModuleState& state, const Breaker& breaker, Token token) noexcept
        : state_(state), scope_(enter_scope(state, breaker, token)) {}
    ~ProbeScope() { leave_scope(state_, scope_); }
    ProbeScope(const ProbeScope&) = delete;
    ProbeScope& operator=(const ProbeScope&) = delete;

  private:
    const ModuleState& state_;
    PyObject* scope_;
};

}  // namespace memguard
