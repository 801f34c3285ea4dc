// The sampled allocation profile: which code asked for the memory of Python that is alive.
//
// While it is armed, hooks around the allocators of PYMEM_DOMAIN_MEM and PYMEM_DOMAIN_OBJ count
// bytes and take a sample about once in `interval_bytes`. Not PYMEM_DOMAIN_RAW: it is called
// without the GIL, where no stack can be read. What a hook must stand, and how it does:
//
// - Blocks that are older than the profile, or outlive it: they get no header and no other address.
//   A hook that is called for a strange block finds nothing in the table, and passes it on.
// - Others who hook in as well (tracemalloc), before or after us, and leave in any order: the hooks
//   are static functions that pass on to what was below them when they were installed. They leave
//   only if they are on top; else they stay, off, and are used again. Whether they are still called
//   is found out by an allocation, so that they are never installed above themselves (install()).
// - Interpreters with a GIL of their own, which call the same hooks at the same time: a hook's ctx
//   is that of the allocator below, so that function and ctx fit together also while only one of
//   them has been replaced; the table stands it, see there; and only the interpreter that armed the
//   profile is sampled, because only its code may be referred to.
// - Calls without a frame, or (by a bug of others) without the GIL: no stack is read.
// - Re-entry: a hook never calls into Python's allocator but the one below, and never runs code. So
//   it refers to code by a reference of its own, given back when the profile ends: to give it back
//   at the release of a block would run destructors in the middle of it.
// - A fork: the child forgets the profile (allocation_profile.py sees to it).
//
// Refused without the GIL, where one lock would have to guard every allocation, in sub-interpreters
// and in versions of CPython whose frames nobody has looked at.
#include <algorithm>  // std::sort
#include <atomic>     // std::atomic
#include <vector>     // std::vector

#include "interpreter_frames.hpp"
#include "memguard/allocation_table.hpp"
#include "memguard/clock.hpp"
#include "state.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

constexpr std::size_t kMostCodes = 4096;
constexpr std::uint32_t kUnknownCode = PointerIndex<kMostCodes>::kFull;

constexpr const char* kInUse = "another interpreter is using the table at this moment";

constexpr PyMemAllocatorDomain kDomains[] = {PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};

enum class Stage : std::uint8_t { none, running, ending };

// One for the process, as the allocators are. No memory is touched before the first start.
struct Profile {
    AllocationTable table;
    PointerIndex<kMostCodes> codes;  // with a reference each
    PyMemAllocatorEx below[2];
    // These are the main interpreter's alone.
    Stage stage = Stage::none;
    std::int64_t started_ns = 0;
    bool may_be_called[2];  // the hook was installed, and was not on top when it was to leave
    // Written by whoever runs a hook. relaxed throughout: counts and marks, nothing depends on
    // them.
    std::atomic<bool> was_called[2];
    std::atomic<std::uint64_t> samples;
    std::atomic<std::uint64_t> dropped;    // no room, or in use
    std::atomic<std::uint64_t> elsewhere;  // of another interpreter, or of no thread of Python
    std::atomic<std::int64_t> sampling_ns;
};

constinit Profile profile{};

void count(std::atomic<std::uint64_t>& counter) noexcept {
    counter.fetch_add(1, std::memory_order_relaxed);  // relaxed: see Profile
}

std::uint32_t number_of(PyCodeObject* code) noexcept {
    const auto found = profile.codes.find_or_add(code);
    if (found.is_new) {
        Py_INCREF(code);
    }
    return found.number;
}

AllocationStack stack_of(PyThreadState* thread) noexcept {
    AllocationStack stack;
    if constexpr (kReadsFrames) {
        InterpreterFrame frame = InterpreterFrame::innermost(thread);
        for (; frame && !stack.is_full(); frame = frame.caller()) {
            if (PyCodeObject* const code = frame.code(); code != nullptr) {
                stack.push({number_of(code), frame.offset_in(code)});
            }
        }
    }
    return stack;
}

void sample(std::size_t domain, const void* block, std::size_t size) noexcept {
    profile.was_called[domain].store(true, std::memory_order_relaxed);  // relaxed: see Profile
    const std::int64_t now_ns = monotonic_ns();
    if (!profile.table.is_on() || profile.table.has_ended(now_ns)) {
        profile.table.next_mark();
        return;
    }
    profile.table.next_mark();
    PyThreadState* const thread = attached_thread();
    if (thread == nullptr || PyThreadState_GetInterpreter(thread) != PyInterpreterState_Main()) {
        count(profile.elsewhere);
        return;
    }
    const bool added = profile.table.add(block, size, now_ns, stack_of(thread));
    count(added ? profile.samples : profile.dropped);
    // relaxed: see Profile
    profile.sampling_ns.fetch_add(monotonic_ns() - now_ns, std::memory_order_relaxed);
}

void after_getting(std::size_t domain, const void* block, std::size_t size) noexcept {
    if (block != nullptr && profile.table.due(size)) [[unlikely]] {
        sample(domain, block, size);
    }
}

void before_releasing(const void* block) noexcept {
    if (profile.table.may_hold(block)) [[unlikely]] {
        profile.table.remove(block);
    }
}

template <std::size_t Domain>
class Hooks {
  public:
    static void* malloc(void*, std::size_t size) noexcept {
        void* const block = below().malloc(below().ctx, size);
        after_getting(Domain, block, size);
        return block;
    }

    static void* calloc(void*, std::size_t count, std::size_t size) noexcept {
        void* const block = below().calloc(below().ctx, count, size);
        after_getting(Domain, block, count * size);  // does not overflow: the block is there
        return block;
    }

    // As a release and a new block, so that what grew has a chance by its whole size, and the stack
    // is the one that made it grow. After it, because one that fails leaves the old block alone.
    static void* realloc(void*, void* old, std::size_t size) noexcept {
        void* const block = below().realloc(below().ctx, old, size);
        if (block != nullptr) {
            before_releasing(old);
        }
        after_getting(Domain, block, size);
        return block;
    }

    static void free(void*, void* block) noexcept {
        before_releasing(block);
        below().free(below().ctx, block);
    }

  private:
    static const PyMemAllocatorEx& below() noexcept { return profile.below[Domain]; }
};

PyMemAllocatorEx hooks_of(std::size_t domain, void* ctx) noexcept {
    if (domain == 0) {
        return {ctx, Hooks<0>::malloc, Hooks<0>::calloc, Hooks<0>::realloc, Hooks<0>::free};
    }
    return {ctx, Hooks<1>::malloc, Hooks<1>::calloc, Hooks<1>::realloc, Hooks<1>::free};
}

PyMemAllocatorEx installed(std::size_t domain) noexcept {
    PyMemAllocatorEx found;
    PyMem_GetAllocator(kDomains[domain], &found);
    return found;
}

bool is_on_top(std::size_t domain) noexcept {
    return installed(domain).malloc == hooks_of(domain, nullptr).malloc;
}

// Whether an allocation of that domain comes by its hook. Other interpreters may get in between.
bool is_called(std::size_t domain) noexcept {
    profile.was_called[domain].store(false, std::memory_order_relaxed);  // relaxed: see Profile
    profile.table.wake();
    if (domain == 0) {
        PyMem_Free(PyMem_Malloc(1));
    } else {
        PyObject_Free(PyObject_Malloc(1));
    }
    return profile.was_called[domain].load(std::memory_order_relaxed);  // relaxed: see Profile
}

bool is_only_interpreter() noexcept {
    PyInterpreterState* const newest = PyInterpreterState_Head();
    return newest == PyInterpreterState_Main() && PyInterpreterState_Next(newest) == nullptr;
}

// A hook above itself would call itself for ever. So one that is not known to have left is put on
// top again only if it is certain that it is not called any more. In doubt the profile stays empty.
void install() noexcept {
    for (std::size_t domain = 0; domain < 2; ++domain) {
        if (profile.may_be_called[domain] &&
            (is_on_top(domain) || is_called(domain) || !is_only_interpreter())) {
            continue;
        }
        profile.below[domain] = installed(domain);
        PyMemAllocatorEx hooks = hooks_of(domain, profile.below[domain].ctx);
        PyMem_SetAllocator(kDomains[domain], &hooks);
        profile.may_be_called[domain] = true;
    }
}

void uninstall() noexcept {
    for (std::size_t domain = 0; domain < 2; ++domain) {
        if (is_on_top(domain)) {
            PyMem_SetAllocator(kDomains[domain], &profile.below[domain]);
            profile.may_be_called[domain] = false;
        }
    }
}

// Ends the profile, also by an exception: gives back what it refers to. That may run destructors,
// which start or stop nothing meanwhile.
class Ending {
  public:
    Ending() noexcept { profile.stage = Stage::ending; }
    Ending(const Ending&) = delete;
    Ending& operator=(const Ending&) = delete;
    ~Ending() {
        for (std::uint32_t i = 0; i < profile.codes.size(); ++i) {
            Py_DECREF(static_cast<PyObject*>(const_cast<void*>(profile.codes[i])));
        }
        profile.codes.clear();
        profile.stage = Stage::none;
    }
};

bool is_main_interpreter() noexcept {
    return PyInterpreterState_Get() == PyInterpreterState_Main();
}

const char* reason_to_refuse(double seconds, std::uint64_t interval_bytes) {
    if (!kReadsFrames) {
        return "this Python has no GIL, or is newer than what was looked at (3.11 to 3.14)";
    }
    if (!(seconds > 0.0) || interval_bytes < 1) {
        return "seconds and interval_bytes must be > 0";
    }
    if (!is_main_interpreter()) {
        return "only the main interpreter can be profiled";
    }
    if (profile.stage != Stage::none) {
        return "a profile runs already";
    }
    if (!frames_are_as_expected()) {
        return "the frames of this Python are not laid out as expected";
    }
    return nullptr;
}

void start(double seconds, std::uint64_t interval_bytes) {
    if (const char* const reason = reason_to_refuse(seconds, interval_bytes); reason != nullptr) {
        throw std::runtime_error(reason);
    }
    constexpr double kLongest = 3600.0;
    const std::int64_t now_ns = monotonic_ns();
    const double length_ns = std::min(seconds, kLongest) * static_cast<double>(kNsPerSecond);
    profile.started_ns = now_ns;
    // relaxed: see Profile
    profile.samples.store(0, std::memory_order_relaxed);
    profile.dropped.store(0, std::memory_order_relaxed);
    profile.elsewhere.store(0, std::memory_order_relaxed);
    profile.sampling_ns.store(0, std::memory_order_relaxed);
    install();  // before the table is on: its own allocations are no samples
    const auto seed = static_cast<std::uint64_t>(now_ns);
    if (!profile.table.start(interval_bytes, now_ns + static_cast<std::int64_t>(length_ns), seed)) {
        uninstall();
        throw std::runtime_error(kInUse);
    }
    profile.stage = Stage::running;
}

py::tuple frames_of(const AllocationStack& stack) {
    py::tuple frames(stack.depth);
    for (std::uint32_t i = 0; i < stack.depth; ++i) {
        const auto [number, offset] = stack.frames[i];
        if (number == kUnknownCode) {
            frames[i] = py::make_tuple("?", "?", 0);
            continue;
        }
        auto* const code = static_cast<PyObject*>(const_cast<void*>(profile.codes[number]));
        const int line = PyCode_Addr2Line(reinterpret_cast<PyCodeObject*>(code), offset);
        const py::handle handle{code};
        frames[i] = py::make_tuple(handle.attr("co_qualname"), handle.attr("co_filename"), line);
    }
    return frames;
}

bool is_same_stack(const AllocationStack& a, const AllocationStack& b) noexcept {
    return a.depth == b.depth && a.frames == b.frames;
}

// One row for each stack: bytes, those of them from the first half of the profile, samples, frames.
py::list rows_of(std::vector<AllocationSample>& samples, std::int64_t half_ns) {
    std::sort(samples.begin(), samples.end(), [](const auto& a, const auto& b) {
        return a.stack.frames < b.stack.frames;  // unused frames are zero
    });
    py::list rows;
    for (std::size_t first = 0, next = 0; first < samples.size(); first = next) {
        double bytes = 0.0;
        double lasting = 0.0;
        for (; next < samples.size() && is_same_stack(samples[first].stack, samples[next].stack);
             ++next) {
            bytes += samples[next].weight_bytes;
            lasting += samples[next].at_ns < half_ns ? samples[next].weight_bytes : 0.0;
        }
        rows.append(py::make_tuple(static_cast<std::int64_t>(bytes),
                                   static_cast<std::int64_t>(lasting), next - first,
                                   frames_of(samples[first].stack)));
    }
    return rows;
}

py::object stop() {
    if (!is_main_interpreter()) {
        return py::none();
    }
    profile.table.stop();
    uninstall();  // also if none was started: others may have been on top before, and are gone
    if (profile.stage != Stage::running) {
        return py::none();
    }
    const Ending ending;
    const std::int64_t now_ns = monotonic_ns();
    std::vector<AllocationSample> samples;
    samples.reserve(AllocationTable::kMostSamples);  // no allocation, so no exception, in the table
    if (!profile.table.for_each([&](const AllocationSample& one) { samples.push_back(one); })) {
        throw std::runtime_error(kInUse);
    }
    const auto number = [](const auto& counter) {
        return counter.load(std::memory_order_relaxed);  // relaxed: see Profile
    };
    py::dict found;
    found["seconds"] = static_cast<double>(now_ns - profile.started_ns) / kNsPerSecond;
    found["stacks"] = rows_of(samples, profile.started_ns + (now_ns - profile.started_ns) / 2);
    found["samples"] = number(profile.samples);
    found["dropped"] = number(profile.dropped);
    found["elsewhere"] = number(profile.elsewhere);
    found["sampling_seconds"] = static_cast<double>(number(profile.sampling_ns)) / kNsPerSecond;
    return found;
}

void forget() {
    if (is_main_interpreter()) {
        profile.table.forget();
        uninstall();
        const Ending ending;
    }
}

}  // namespace

void bind_allocation_profile(py::module_& m) {
    m.attr("HAS_ALLOCATION_PROFILE") = kReadsFrames;
    m.def("start_allocation_profile", &start, py::kw_only(), py::arg("seconds"),
          py::arg("interval_bytes") = 512 * 1024,
          "Sample allocations of Python for `seconds`, one in `interval_bytes` on average.");
    m.def("stop_allocation_profile", &stop,
          "End the profile: what was sampled and is alive, by stack. None if none was started.");
    m.def("forget_allocation_profile", &forget,
          "In the child of a fork: end the parent's profile without looking at it.");
}

}  // namespace memguard
