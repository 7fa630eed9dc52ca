"""Training as pure functions: the Anakin loop, evaluation, and ``jmarl.train``.

Nothing here reads or writes files, prints, or depends on an algorithm.
"""
