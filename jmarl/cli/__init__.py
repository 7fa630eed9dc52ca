"""Command line of jmarl: commands, and what they need of the process. No training logic.

``jmarl train`` goes through ``commands``, ``launch``, ``runs.run``, ``runs.loop`` and the
compiled programs of ``training.programs`` to ``training.anakin.train_chunk``, which calls
``System.update``.
"""
