"""Command line of jmarl: commands, help texts and settings of the process.

This package has no training logic. ``jmarl train`` calls ``commands``, ``launch``, ``runs.run``
and ``runs.loop`` in turn. The loop runs the compiled programs of ``training.programs``. They
contain ``training.anakin.train_chunk``, which calls ``System.update``.
"""
