"""What breakers do in the corners: small questions, put to every library alike.

A probe is a function that takes a library's adapter, really drives one or two of its breakers into
a corner, and returns what happened in a few words; its docstring is the question. Each is asked in
a process of its own with a time limit, so that a library which hangs gives an answer as well.

    python -m bench.corners        asks all, and writes docs/corners.md
"""
