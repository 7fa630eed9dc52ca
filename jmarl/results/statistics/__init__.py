"""Statistics of several runs, after Agarwal et al. (2021) and Gorsane et al. (2022).

A *task* is an environment. Scores of a system are one array per task, with one value per seed, so
that tasks may have different numbers of seeds.
"""
