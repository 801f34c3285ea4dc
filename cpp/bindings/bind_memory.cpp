// The memory probe and its sampler for Python. Values were validated in Python.
#include <pybind11/stl.h>  // std::optional, std::vector

#include <algorithm>  // std::min
#include <atomic>     // std::atomic
#include <memory>     // std::unique_ptr, std::shared_ptr
#include <optional>   // std::optional
#include <string>     // std::string
#include <utility>    // std::move, std::declval
#include <vector>     // std::vector

#include "arenas.hpp"
#include "memguard/call_budget.hpp"
#include "memguard/clock.hpp"
#include "memguard/probe.hpp"
#include "memguard/sampler.hpp"
#include "memguard/sources.hpp"
#include "sample_tuple.hpp"
#include "seconds.hpp"
#include "state.hpp"
#include "without_gil.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

// A NativeProbe for several threads. One of them uses the kept descriptors; who comes while they
// are in use opens its own for once. No lock: a fork in another thread would leave it locked for
// ever.
class SharedProbe {
    template <class Use>
    auto with_probe(Use use) {
        static_assert(noexcept(use(std::declval<NativeProbe&>())), "else it stays busy for ever");
        // acquire: pairs with the release store below, which hands the probe over
        if (busy_.exchange(true, std::memory_order_acquire)) {
            NativeProbe another{sources_, root_};
            return use(another);
        }
        auto result = use(probe_);
        // release: pairs with the acquire exchange above
        busy_.store(false, std::memory_order_release);
        return result;
    }

  public:
    SharedProbe(SampleSources sources, std::string root)
        : sources_(std::move(sources)), root_(std::move(root)), probe_(sources_, root_) {}

    [[nodiscard]] MemorySample sample() {
        return with_probe([](NativeProbe& probe) noexcept { return probe.sample(); });
    }

    [[nodiscard]] MemorySample cheap_sample() {
        return with_probe([](NativeProbe& probe) noexcept { return probe.cheap_sample(); });
    }

    [[nodiscard]] std::optional<std::uint64_t> rss_bytes() {
        return with_probe([](NativeProbe& probe) noexcept { return probe.rss_bytes(); });
    }

    void retry_malloc() noexcept { probe_.retry_malloc(); }

  private:
    const SampleSources sources_;
    const std::string root_;
    std::atomic<bool> busy_{false};
    NativeProbe probe_;
};

using NativeSampler = Sampler<NativeProbe>;

SampleSources sources_with(std::shared_ptr<LoadGauge> load) {
    return {std::move(load), &python_arenas()};
}

// The samples after number `after` that are still there, and the number to go on from.
py::tuple samples_after(const NativeSampler& sampler, std::uint64_t after) {
    const auto& ring = sampler.samples();
    const std::uint64_t pushed = ring.pushed();
    std::vector<MemorySample> samples(
        std::min<std::uint64_t>(pushed > after ? pushed - after : 0, ring.capacity()));
    const RingRange range = ring.snapshot(samples.data(), samples.size());
    py::list found;
    for (std::size_t i = 0; i < range.count; ++i) {
        found.append(to_tuple(samples[i]));
    }
    return py::make_tuple(found, range.end);
}

}  // namespace

void bind_memory(py::module_& m) {
    m.attr("HAS_NATIVE_PROBE") = kNativeProbe;
    m.attr("SAMPLE_FIELDS") = sample_field_names();

    py::class_<SharedProbe>(m, "Probe", "Reads the memory of this process.")
        .def(py::init([](std::shared_ptr<LoadGauge> load, std::string root) {
                 return std::make_unique<SharedProbe>(sources_with(std::move(load)),
                                                      std::move(root));
             }),
             py::kw_only(), py::arg("load") = nullptr, py::arg("root") = "",
             "`load` is read with each sample; another `root` before /proc and /sys is for tests.")
        .def(
            "sample",
            [](SharedProbe& probe) {
                return to_tuple(without_gil([&] { return probe.sample(); }));
            },
            "SAMPLE_FIELDS of now; None for what cannot be read.")
        .def(
            "cheap_sample",
            [](SharedProbe& probe) {
                return to_tuple(without_gil([&] { return probe.cheap_sample(); }));
            },
            "As sample(), of the control group its usage alone.")
        .def("rss_bytes", &SharedProbe::rss_bytes, "The resident set; None if it cannot be read.")
        .def("retry_malloc", &SharedProbe::retry_malloc,
             "Read malloc's figures again, if they were given up as dear.");

    py::class_<NativeSampler>(m, "Sampler", "A native thread that samples at an interval.")
        .def(py::init([](double interval, std::size_t capacity, std::shared_ptr<LoadGauge> load) {
                 return std::make_unique<NativeSampler>(clamped_ns(interval), capacity,
                                                        sources_with(std::move(load)));
             }),
             py::arg("interval"), py::arg("capacity"), py::arg("load") = nullptr,
             "`interval` in seconds; the newest `capacity` samples are kept.")
        .def("start", &NativeSampler::start, "Start the thread, once; it samples at once.")
        .def(
            "stop",
            [](NativeSampler& sampler) {
                without_gil([&] {
                    sampler.stop();
                    return true;
                });
            },
            "End the thread and wait for it; in a forked child, forget it.")
        .def(
            "wait_for_sample",
            [](NativeSampler& sampler, std::uint64_t after, double timeout) {
                return without_gil(
                    [&] { return sampler.wait_for_sample(after, clamped_ns(timeout)); });
            },
            py::arg("after"), py::arg("timeout"),
            "Wait until more than `after` samples were taken: True. False when `timeout` seconds "
            "are over or the sampler is stopped.")
        .def(
            "failures", [](const NativeSampler& sampler) { return sampler.probe().failures(); },
            "How many reads failed although they were tried again.")
        .def(
            "retry_malloc", [](NativeSampler& sampler) { sampler.probe().retry_malloc(); },
            "Read malloc's figures again, if they were given up as dear.")
        .def("samples_after", &samples_after, py::arg("after"),
             "The samples with numbers from `after` that are still kept, oldest first, and the "
             "number to ask with next.");

    py::class_<CallBudget>(m, "CallBudget", "How often a call may be made that can become dear.")
        .def(py::init<>())
        .def("due", &CallBudget::due, "Asked once per sample: make the call for this one?")
        .def("record", &CallBudget::record, py::arg("cost_ns"), "What the call has cost.");
}

}  // namespace memguard
