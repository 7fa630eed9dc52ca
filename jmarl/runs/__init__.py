"""Runs on disk and on the terminal: folder, training loop, checkpoints, logs and videos.

The functions that train are in ``jmarl.training``. This package does not import ``jmarl.cli``.
"""
