"""Training of networks as they will be compiled. Needs torch: the extra `train`.

Nothing here is imported by the compiler itself; the commands that train load it when they run.
"""
