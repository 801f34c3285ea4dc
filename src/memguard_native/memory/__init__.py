"""The memory guard: sample this process, judge its growth, raise the alarm."""
