"""The benchmarks: `python bench/run.py`, from the root of the repository."""
