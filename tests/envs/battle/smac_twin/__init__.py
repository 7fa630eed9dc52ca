"""Reference twin of the rules of SMAC: one world, unit by unit, in plain loops and float64.

The twin is slow on purpose, and shares nothing with ``jmarl``. Units are a list: the allies first,
then the enemies; an index is a place in that list. Distances are between centers unless a comment
says otherwise. A step has 8 ticks of 1/16 s, and a tick has eight phases. Each reads the results of
the phases before it:

A. fire: units that are ready shoot at targets in reach (``fighting``);
B. hit: all shots of the tick land at the same time;
C. burst: banelings burst that fired or died;
D. support: healers heal (``recovering``);
E. recover: shields, health and energy of the living grow;
F. move: units walk along their heading, or to their target (``moving``);
G. push: overlapping bodies push each other apart;
H. reload: cooldowns start or advance.
"""
