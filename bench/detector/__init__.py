"""How right a leak detector is: recorded traces with labels, scores, and constants left to chance.

`traces` reads, `verdicts` asks ours, `scoring` counts, `rules` judges many constants at once and
`validation` chooses among them with a program left out. The rivals are in `bench.rivals`.
"""
