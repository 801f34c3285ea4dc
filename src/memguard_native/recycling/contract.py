def broken_hooks(base):
    return []
