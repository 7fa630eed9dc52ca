"""Frames: pixels of bars, lines, areas and the legend, and the part that is shown."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from jmarl.envs.scene import Arc, Bar, Disc, LegendEntry, Line, Rectangle, Scene, Sector
from jmarl.saved.frame import (
    CAPTION_HEIGHT,
    GROUND,
    LEGEND_ROW_HEIGHT,
    View,
    draw_frame,
    view,
)


UNIT = 20
"""Pixels of a frame per unit of length."""
HEIGHT = 8
EMPTY = Scene(16, HEIGHT, (), (), "")
BARE = EMPTY.background
RED, GREEN, BLUE = "#ff0000", "#00ff00", "#0000ff"
DISC = Disc(8.0, 4.0, 1.0, BLUE, "", 1.0)
BARS = (Bar(0.5, "tab:cyan"), Bar(0.25, "tab:purple"))
WITH_BARS = DISC._replace(bars=BARS)


def frame(**shapes):
    return draw_frame(EMPTY._replace(**shapes), 16 * UNIT)


def color_at(image, x, y):
    """Return the color at a place of a scene."""
    row = CAPTION_HEIGHT + round((HEIGHT - y) * UNIT)
    return image[row, round(x * UNIT)] / 255


def mixed(color, opacity):
    """Return a color on the ground."""
    full = np.asarray(to_rgb(color))
    ground = np.asarray(to_rgb(GROUND))
    return opacity * full + (1 - opacity) * ground


def assert_color(image, places, color):
    for place in places:
        np.testing.assert_allclose(color_at(image, *place), color, atol=0.01)


def pixels_of(image, color):
    """Return the rows and columns of the pixels with a color."""
    differences = np.abs(image / 255 - to_rgb(color))
    return np.argwhere((differences < 0.01).all(-1))


def test_each_bar_has_the_length_of_its_fill():
    image = frame(discs=(WITH_BARS,))
    colors = ("tab:green", "tab:cyan", "tab:purple")
    counts = [len(pixels_of(image, color)) for color in colors]
    shares = np.asarray(counts) / counts[0]
    np.testing.assert_allclose(shares, [1, 0.5, 0.25], atol=0.15)


def test_bars_are_stacked_from_bottom_to_top():
    image = frame(discs=(WITH_BARS,))
    first, second, third = (
        pixels_of(image, color)[:, 0]
        for color in ("tab:green", "tab:cyan", "tab:purple")
    )
    assert third.max() < second.min()
    assert second.max() < first.min()


def test_an_empty_disc_has_no_bars_and_is_below_the_others():
    empty = WITH_BARS._replace(fill=0.0, color=RED)
    image = frame(discs=(DISC, empty))
    assert not len(pixels_of(image, "tab:cyan"))
    alone = frame(discs=(DISC,))
    np.testing.assert_array_equal(
        color_at(image, 8, 4.5),
        color_at(alone, 8, 4.5),
    )


def test_bars_are_above_all_discs():
    below = DISC._replace(y=2.4)
    images = [
        frame(discs=(below, DISC)),
        frame(discs=(DISC, below)),
    ]
    counts = [len(pixels_of(image, "tab:green")) for image in images]
    assert counts[0] == counts[1] > 0


def test_a_rectangle_covers_its_corners_with_its_opacity():
    rectangle = Rectangle(1.0, 2.0, 3.0, 6.0, RED, 0.5)
    image = frame(areas=(rectangle,))
    inside = [(1.2, 2.2), (2.8, 5.8)]
    outside = [(3.2, 4), (2, 6.2)]
    assert_color(image, inside, mixed(RED, 0.5))
    assert_color(image, outside, to_rgb(GROUND))


def test_a_sector_covers_its_angle_around_its_direction():
    north = math.pi / 2
    sixth = math.pi / 3
    sector = Sector(10.0, 4.0, 3.0, GREEN, 0.25, north, sixth)
    image = frame(areas=(sector,))
    inside = [
        (10, 4.5),
        (10, 6.7),
        (11.1, 6.4),
        (8.9, 6.4),
    ]
    outside = [
        (10, 3.7),
        (11.8, 6),
        (8.2, 6),
        (10, 7.2),
    ]
    assert_color(image, inside, mixed(GREEN, 0.25))
    assert_color(image, outside, to_rgb(GROUND))


def test_a_sector_is_a_whole_circle_by_default():
    circle = Sector(8.0, 4.0, 2.0, GREEN, 1.0)
    image = frame(areas=(circle,))
    angles = np.arange(0, math.tau, 0.2)
    x, y = np.cos(angles), np.sin(angles)
    directions = np.stack([x, y], axis=1)
    inside = (8, 4) + 1.8 * directions
    outside = (8, 4) + 2.2 * directions
    assert_color(image, inside, to_rgb(GREEN))
    assert_color(image, outside, to_rgb(GROUND))


def covered(style):
    """Return which pixels between its ends a line covers."""
    line = Line(2.0, 4.0, 14.0, 4.0, RED, style)
    image = frame(lines=(line,))
    row = image[CAPTION_HEIGHT + 4 * UNIT]
    between = slice(2 * UNIT + 5, 14 * UNIT - 5)
    return row[between, 1] < 200


def test_lines_of_the_styles_differ():
    assert covered("solid").all()
    assert 0.3 < covered("dashed").mean() < 0.9
    assert covered("dotted").mean() < covered("dashed").mean()


def test_discs_are_above_lines():
    line = Line(2.0, 4.0, 14.0, 4.0, RED)
    image = frame(discs=(DISC,), lines=(line,))
    assert_color(image, [(8, 4)], to_rgb(BLUE))


def test_a_background_is_below_all_shapes():
    lower = Rectangle(0.0, 0.0, 16.0, 4.0, RED, 1.0)
    left = Rectangle(0.0, 0.0, 4.0, 8.0, GREEN, 1.0)
    ground = BARE._replace(color="#204060", areas=(lower,))
    image = frame(background=ground, areas=(left,))
    assert_color(image, [(10, 6)], to_rgb("#204060"))
    assert_color(image, [(10, 2)], to_rgb(RED))
    assert_color(image, [(2, 2), (2, 6)], to_rgb(GREEN))


def test_shapes_look_alike_in_the_background_and_above_it():
    shapes = {
        "areas": (Sector(3.0, 3.0, 2.0, BLUE),),
        "lines": (Line(2.0, 4.0, 14.0, 5.0, RED),),
    }
    ground = BARE._replace(**shapes)
    above = frame(**shapes)
    np.testing.assert_array_equal(frame(background=ground), above)


def polar(image, color, x, y):
    """Return distances and angles, from a place, of the pixels that are mostly of a color."""
    near = np.abs(image / 255 - to_rgb(color)).max(-1) < 0.4
    rows, columns = np.nonzero(near[CAPTION_HEIGHT:])
    dx = columns / UNIT - x
    dy = HEIGHT - rows / UNIT - y
    return np.hypot(dx, dy), np.arctan2(dy, dx)


def test_an_arc_covers_its_angle_around_its_direction():
    north = quarter = math.pi / 2
    arc = Arc(8.0, 1.0, 5.0, RED, "dashed", north, quarter)
    ground = BARE._replace(color="black", lines=(arc,))
    image = frame(background=ground)
    distance, angle = polar(image, RED, 8, 1)
    np.testing.assert_allclose(distance, 5, atol=0.15)
    ends = [angle.min(), angle.max()]
    expected = [north - quarter / 2, north + quarter / 2]
    np.testing.assert_allclose(ends, expected, atol=0.1)


def test_a_ring_surrounds_its_disc():
    ringed = DISC._replace(ring=RED, fill=None)
    image = frame(discs=(ringed,))
    distance, _ = polar(image, RED, 8, 4)
    assert len(distance) > 60
    np.testing.assert_allclose(distance, 1, atol=0.15)


def disc_and_shadow(height):
    """Return the number of pixels of a disc, and the center of its shadow."""
    ball = Disc(8.0, 4.0, 0.5, BLUE, "", height=height)
    white = BARE._replace(color="white")
    image = frame(discs=(ball,), background=white)
    shadow = pixels_of(image[CAPTION_HEIGHT:], (0.65, 0.65, 0.65))
    row, column = shadow.mean(0) / UNIT
    return len(pixels_of(image, BLUE)), column, HEIGHT - row


def test_a_higher_disc_is_larger_and_its_shadow_farther():
    low, low_x, low_y = disc_and_shadow(2.0)
    high, high_x, high_y = disc_and_shadow(4.0)
    assert low < high
    assert 8.5 < low_x < high_x
    assert 3.5 > low_y > high_y


def test_the_legend_is_a_strip_below_the_picture():
    entries = (
        LegendEntry("a disc", RED, "disc", "m"),
        LegendEntry("a bar", GREEN, "bar"),
        LegendEntry("a zone", BLUE),
        LegendEntry("a line", "black", "solid"),
        LegendEntry("an owner", "#ff00ff", "ring"),
    )
    plain = frame()
    image = frame(legend=entries)
    picture, strip = np.split(image, [len(plain)])
    np.testing.assert_array_equal(picture, plain)
    assert len(strip) == 2 * LEGEND_ROW_HEIGHT  # three entries fit into 320 pixels
    assert len(pixels_of(strip, RED)) > 30
    assert len(pixels_of(strip, GREEN)) > 10
    assert len(pixels_of(strip, "#ff00ff")) > 10


def zooming(*places):
    """Return an episode with a disc that visits some places."""
    scene = Scene(100, 100, (), (), "", zoom=True)
    discs = [DISC._replace(x=x, y=y) for x, y in places]
    return [scene._replace(discs=(disc,)) for disc in discs]


def test_a_zoom_shows_every_disc_of_the_episode_and_half_of_each_side():
    part = view(zooming((20, 30), (90, 40)))
    margin = 6 + DISC.radius
    assert part.left == 20 - margin
    assert part.width == 70 + 2 * margin
    assert (part.bottom, part.height) == (10, 50)


@pytest.mark.parametrize(
    ("places", "part"),
    [
        ([(1, 99)], View(0, 50, 50, 50)),
        ([(0, 0), (100, 100)], View(0, 0, 100, 100)),
    ],
)
def test_a_zoom_stays_within_the_scene(places, part):
    assert view(zooming(*places)) == part


def test_scenes_are_shown_as_a_whole_by_default():
    (scene,) = zooming((20, 30))
    unzoomed = scene._replace(zoom=False)
    assert view([unzoomed]) == View(0, 0, 100, 100)


def test_a_zoom_leaves_out_discs_that_are_not_framed():
    (scene,) = zooming((20, 30))
    far = DISC._replace(x=95, y=95, framed=False)
    both = scene._replace(discs=(*scene.discs, far))
    assert view([both]) == view([scene])


def test_a_disc_outside_the_shown_part_leaves_no_label_in_the_caption():
    lower_half = View(0, 0, 16, 4)
    shown = []
    for label in ("m", ""):
        disc = DISC._replace(y=4.8, label=label)
        scene = EMPTY._replace(discs=(disc,))
        shown.append(draw_frame(scene, 320, lower_half))
    np.testing.assert_array_equal(*shown)


def test_a_frame_can_show_a_part_of_the_scene():
    square = Rectangle(8.0, 4.0, 12.0, 8.0, RED, 1.0)
    scene = EMPTY._replace(areas=(square,))
    below = draw_frame(scene, 160, View(8, 0, 8, 4))
    assert below.shape == (CAPTION_HEIGHT + 80, 160, 3)
    assert not len(pixels_of(below, RED))
    above = draw_frame(scene, 160, View(8, 4, 8, 4))
    assert abs(len(pixels_of(above, RED)) - 80**2) < 400
