// A MemorySample as Python sees it: a tuple in the order of `_core.SAMPLE_FIELDS`.
#pragma once

#include <pybind11/pybind11.h>

#include <array>    // std::array
#include <cstddef>  // std::size_t
#include <cstdint>  // std::uint64_t

#include "memguard/sample.hpp"

namespace memguard {

struct SampleColumn {
    const char* name;
    std::uint64_t MemorySample::* member;
    SampleField field;
};

// What may be missing, in the order of the tuple; the two times come before, the rest after it.
inline constexpr std::array kSampleColumns{
    SampleColumn{"rss_bytes", &MemorySample::rss_bytes, SampleField::rss},
    SampleColumn{"anon_bytes", &MemorySample::anon_bytes, SampleField::anon},
    SampleColumn{"file_bytes", &MemorySample::file_bytes, SampleField::file},
    SampleColumn{"shmem_bytes", &MemorySample::shmem_bytes, SampleField::shmem},
    SampleColumn{"swap_bytes", &MemorySample::swap_bytes, SampleField::swap},
    SampleColumn{"threads", &MemorySample::threads, SampleField::threads},
    SampleColumn{"python_arena_bytes", &MemorySample::python_arena_bytes,
                 SampleField::python_arenas},
    SampleColumn{"malloc_in_use_bytes", &MemorySample::malloc_in_use_bytes, SampleField::malloc},
    SampleColumn{"malloc_free_bytes", &MemorySample::malloc_free_bytes, SampleField::malloc},
    SampleColumn{"malloc_mmap_bytes", &MemorySample::malloc_mmap_bytes, SampleField::malloc},
    SampleColumn{"malloc_age_ns", &MemorySample::malloc_age_ns, SampleField::malloc},
    SampleColumn{"python_blocks", &MemorySample::python_blocks, SampleField::python_blocks},
    SampleColumn{"gpu_bytes", &MemorySample::gpu_bytes, SampleField::gpu},
    SampleColumn{"cgroup_usage_bytes", &MemorySample::cgroup_usage_bytes,
                 SampleField::cgroup_usage},
    SampleColumn{"cgroup_private_bytes", &MemorySample::cgroup_private_bytes,
                 SampleField::cgroup_private},
    SampleColumn{"cgroup_limit_bytes", &MemorySample::cgroup_limit_bytes,
                 SampleField::cgroup_limit},
    SampleColumn{"cgroup_high_bytes", &MemorySample::cgroup_high_bytes, SampleField::cgroup_high},
    SampleColumn{"cgroup_limit_hits", &MemorySample::cgroup_limit_hits,
                 SampleField::cgroup_limit_hits},
    SampleColumn{"cgroup_oom_kills", &MemorySample::cgroup_oom_kills,
                 SampleField::cgroup_oom_kills},
    SampleColumn{"memory_pressure_us", &MemorySample::memory_pressure_us,
                 SampleField::memory_pressure},
};
inline constexpr std::size_t kSampleFields = 2 + kSampleColumns.size() + 3;

[[nodiscard]] inline pybind11::tuple sample_field_names() {
    pybind11::tuple names(kSampleFields);
    std::size_t i = 0;
    for (const char* time : {"monotonic_ns", "wall_ns"}) {
        names[i++] = time;
    }
    for (const SampleColumn& column : kSampleColumns) {
        names[i++] = column.name;
    }
    for (const char* last : {"load", "sample_cost_ns", "cgroup_cost_ns"}) {
        names[i++] = last;
    }
    return names;
}

// None for what could not be read.
[[nodiscard]] inline pybind11::tuple to_tuple(const MemorySample& sample) {
    namespace py = pybind11;
    py::tuple fields(kSampleFields);
    std::size_t i = 0;
    fields[i++] = sample.monotonic_ns;
    fields[i++] = sample.wall_ns;
    for (const SampleColumn& column : kSampleColumns) {
        const bool known = sample.has(column.field);
        fields[i++] = known ? py::object{py::int_(sample.*column.member)} : py::object{py::none()};
    }
    const bool has_load = sample.has(SampleField::load);
    fields[i++] = has_load ? py::object{py::float_(sample.load)} : py::object{py::none()};
    fields[i++] = sample.sample_cost_ns;
    fields[i++] = sample.cgroup_cost_ns;
    return fields;
}

// The inverse. Raises py::error_already_set for anything else.
[[nodiscard]] inline MemorySample to_sample(const pybind11::tuple& fields) {
    namespace py = pybind11;
    if (fields.size() != kSampleFields) {
        throw py::value_error("a sample has as many fields as SAMPLE_FIELDS");
    }
    MemorySample sample;
    std::size_t i = 0;
    sample.monotonic_ns = fields[i++].cast<std::int64_t>();
    sample.wall_ns = fields[i++].cast<std::int64_t>();
    for (const SampleColumn& column : kSampleColumns) {
        const py::object value = fields[i++];
        if (!value.is_none()) {
            sample.*column.member = value.cast<std::uint64_t>();
            sample.mark(column.field);
        }
    }
    if (const py::object load = fields[i++]; !load.is_none()) {
        sample.load = load.cast<double>();
        sample.mark(SampleField::load);
    }
    sample.sample_cost_ns = fields[i++].cast<std::int64_t>();
    sample.cgroup_cost_ns = fields[i++].cast<std::int64_t>();
    return sample;
}

}  // namespace memguard
