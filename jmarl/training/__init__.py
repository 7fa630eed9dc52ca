"""Training as pure functions: the Anakin loop, evaluation, and ``jmarl.train``.

These functions read and write no files, print nothing, and depend on no algorithm.
"""
