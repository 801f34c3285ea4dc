"""What does a sample cost in the mean with a million free chunks in malloc's lists?

In C++, in a process of its own: malloc's own figures then take it milliseconds, which the sampler
spends once, and from then on rarely or not at all. The mean is that of a day with a sample a
minute, and of the cheap set; what the rest of the control group's figures adds stands beside it,
because it depends on what other processes of the machine do.
"""

from __future__ import annotations

from bench import native
from bench.harness import Bench

GROUP = "sampler"
CHUNKS = 1_000_000
SAMPLES = 24 * 60

MEAN, FIRST, GROUP_MEAN = ("mean of a day's samples, us", "first sample, us", "control group, us")


def suite(b: Bench) -> None:
    with native.compiled("free_chunks") as program:
        for name, chunks in (("few free chunks", 0), ("a million free chunks", CHUNKS)):
            for turn in range(3 if b.effort.quick else 5):
                b.progress(f"{name}, turn {turn + 1}")
                first_us, mean_us, group_us = native.numbers(program, chunks, SAMPLES)
                b.record(name, MEAN, mean_us, package="memguard-native")
                b.record(name, FIRST, first_us)
                b.record(name, GROUP_MEAN, group_us)
    b.budget("a million free chunks", metric=MEAN, at_most=100.0, goal="G12")
