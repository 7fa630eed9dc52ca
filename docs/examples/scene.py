"""A scene for environments of agents on a line."""

from jmarl.envs.scene import Disc, Scene


def scene(name, state):
    """Draw every agent at its place, a filled disc on a line of five places."""
    places = state.env_state.tolist()
    discs = tuple(
        Disc(x + 0.5, 0.5 + agent, 0.4, "tab:blue", str(agent), fill=1.0)
        for agent, x in enumerate(places)
    )
    return Scene(5.0, len(places), discs, lines=(), caption=name)
