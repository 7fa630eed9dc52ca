"""A run on disk and on the terminal: its folder, loop, checkpoints, logs and videos.

The functions that train belong in ``jmarl.training``, and nothing here imports ``jmarl.cli``.
"""
