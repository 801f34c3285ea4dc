"""Small services that leak, or are healthy and look as if they leaked.

They run in compressed time (0.25 s stand for one minute) and record what a sampler would see, in
the columns of tests/traces. Nothing of the detector was tuned on them: they are there to judge it.

    python -m tests.programs --labels
    python -m tests.programs leak_closures_14 --minutes 420 --minute-s 0.25 --csv trace.csv

Each is a function with a decorator of registry.py, which says what is true about it: it builds the
service and returns what the service does at each tick. Memory is allocated for real, by the
mechanism that the name tells; the random numbers come from `--seed`.
"""
