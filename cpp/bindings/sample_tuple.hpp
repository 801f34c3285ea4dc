// A MemorySample as Python sees it: a tuple in the order of `_core.SAMPLE_FIELDS`.
#pragma once

#include <pybind11/pybind11.h>

#include <array>  // std::array

#include "memguard/sample.hpp"

namespace memguard {

inline constexpr std::array kSampleFields{
    "monotonic_ns",        "wall_ns",           "rss_bytes",         "anon_bytes",
    "file_bytes",          "shmem_bytes",       "swap_bytes",        "threads",
    "malloc_in_use_bytes", "malloc_free_bytes", "malloc_mmap_bytes", "malloc_age_ns",
    "sample_cost_ns",
};

// None for what could not be read.
[[nodiscard]] inline pybind11::tuple to_tuple(const MemorySample& sample) {
    namespace py = pybind11;
    const auto field = [&](auto value, SampleField which) -> py::object {
        return sample.has(which) ? py::object{py::int_(value)} : py::object{py::none()};
    };
    return py::make_tuple(
        sample.monotonic_ns, sample.wall_ns, field(sample.rss_bytes, SampleField::rss),
        field(sample.anon_bytes, SampleField::anon), field(sample.file_bytes, SampleField::file),
        field(sample.shmem_bytes, SampleField::shmem), field(sample.swap_bytes, SampleField::swap),
        field(sample.threads, SampleField::threads),
        field(sample.malloc_in_use_bytes, SampleField::malloc),
        field(sample.malloc_free_bytes, SampleField::malloc),
        field(sample.malloc_mmap_bytes, SampleField::malloc),
        field(sample.malloc_age_ns, SampleField::malloc), sample.sample_cost_ns);
}

// The inverse. Raises py::error_already_set for anything else.
[[nodiscard]] inline MemorySample to_sample(const pybind11::tuple& fields) {
    namespace py = pybind11;
    if (fields.size() != kSampleFields.size()) {
        throw py::value_error("a sample has as many fields as SAMPLE_FIELDS");
    }
    MemorySample sample;
    sample.monotonic_ns = fields[0].cast<std::int64_t>();
    sample.wall_ns = fields[1].cast<std::int64_t>();
    const auto take = [&](std::size_t index, std::uint64_t& value, SampleField which) {
        if (!fields[index].is_none()) {
            value = fields[index].cast<std::uint64_t>();
            sample.mark(which);
        }
    };
    take(2, sample.rss_bytes, SampleField::rss);
    take(3, sample.anon_bytes, SampleField::anon);
    take(4, sample.file_bytes, SampleField::file);
    take(5, sample.shmem_bytes, SampleField::shmem);
    take(6, sample.swap_bytes, SampleField::swap);
    take(7, sample.threads, SampleField::threads);
    take(8, sample.malloc_in_use_bytes, SampleField::malloc);
    take(9, sample.malloc_free_bytes, SampleField::malloc);
    take(10, sample.malloc_mmap_bytes, SampleField::malloc);
    sample.malloc_age_ns = fields[11].is_none() ? 0 : fields[11].cast<std::int64_t>();
    sample.sample_cost_ns = fields[12].cast<std::int64_t>();
    return sample;
}

}  // namespace memguard
