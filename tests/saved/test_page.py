"""Pages of episodes: the data, the player's own decoding of them, and what a page loads."""

import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib.colors import to_hex

from jmarl.envs.scene import Arc, Bar, Disc, LegendEntry, Line, Rectangle, Scene, Sector
from jmarl.saved import page, video


NASTY = '</script><img src="http://example.org/x.png">'
WIDTH, HEIGHT = 20.0, 10.0
GRID = WIDTH / page.GRID
LEGEND = (
    LegendEntry("shot", "blue", "solid"),
    LegendEntry("x", "red", "disc", "X"),
)
BARE = Scene(WIDTH, HEIGHT, (), (), "").background
BOX = Rectangle(1.0, 2.0, 3.0, 4.0, "white")
SPOT = Sector(9.0, 5.0, 0.5, "white", 1.0)
TOUCH_LINE = Line(1.0, 2.0, 19.0, 0.5, "white")
CORNER = Arc(7.0, 3.0, 2.0, "white", "dashed", 1.0, 2.0)
BACKGROUND = BARE._replace(
    color="green",
    areas=(SPOT, BOX),
    lines=(TOUCH_LINE, CORNER),
)


def random_scenes(seed, frames=9):
    """Return scenes with every kind of shape, in which most things change."""
    rng = np.random.default_rng(seed)
    return [random_scene(rng, frame) for frame in range(frames)]


def random_scene(rng, frame):
    names = ("a", "b", NASTY, "", "", "a")
    discs = [random_disc(rng, name) for name in names]
    present = tuple(disc for disc in discs if rng.random() < 0.8)
    ends = [(1.0, 2.0), (19.0, 0.5)]
    ends += [(disc.x, disc.y) for disc in present]
    lines = dict.fromkeys(random_line(rng, ends) for _ in range(4))
    center = ends[rng.integers(len(ends))]
    direction = rng.uniform(-3, 9)
    areas = (
        Rectangle(0.0, 0.0, 4.0, 10.0, "gray", 0.5),
        Sector(7.0, 3.0, 1.5, "tab:olive"),
        Sector(*center, 2.0, "tab:orange", 0.25, direction, 0.5),
    )
    return Scene(
        WIDTH,
        HEIGHT,
        present,
        tuple(lines),
        caption=f"frame {frame} {NASTY}" if frame % 3 else "same",
        areas=areas[: rng.integers(4)],
        legend=LEGEND,
        background=BACKGROUND,
    )


def random_line(rng, ends):
    start, end = rng.choice(ends, 2).tolist()
    style = rng.choice(["solid", "dashed", "dotted"])
    return Line(*start, *end, "red", str(style))


def random_disc(rng, name):
    colors = ("tab:cyan", "purple")
    bars = [Bar(rng.random(), color) for color in colors]
    details = [("health", f"{rng.integers(3)} / 3"), (NASTY, "0.5")]
    return Disc(
        x=rng.uniform(0, WIDTH),
        y=rng.uniform(0, HEIGHT),
        radius=rng.choice([0.375, 1.0]),
        color=rng.choice(["tab:blue", "#ff0000"]),
        label=rng.choice(["m", "<"]),
        fill=rng.choice([None, 0.0, 1e-4, 0.7, 1.0]),
        bars=tuple(bars[: rng.integers(3)]),
        name=name,
        details=tuple(details[: rng.integers(3)]),
        ring=rng.choice(["", "tab:olive"]),
        height=rng.choice([0.0, 2.5]),
    )


# Slow reference of the format.


def value_at(series, frame):
    for item in series:
        value, count = item if isinstance(item, list) else (item, 1)
        if frame < count:
            return value
        frame -= count
    raise IndexError(frame)


class Decoder:
    """Scene of one frame in the form that the player uses."""

    def __init__(self, data, frame):
        self.data, self.frame = data, frame
        self.grid = data["grid"]

    def scene(self):
        caption = value_at(self.data["captions"], self.frame)
        return {
            "caption": self.data["texts"][caption],
            "discs": list(self.discs()),
            "lines": [self.line(*mark) for mark in self.shown("lines")],
            "areas": [self.area(*mark) for mark in self.shown("areas")],
        }

    def discs(self):
        for index, (looks, *_) in enumerate(self.data["discs"]):
            look = value_at(looks, self.frame)
            if look >= 0:
                yield self.disc(index, self.data["looks"][look])

    def disc(self, index, look):
        radius, color, ring, label, name, colors, names = look
        x, y = self.place(index)
        fill, height, bars, details = self.data["discs"][index][3:]
        levels = map(self.level, bars)
        texts = map(self.text, details)
        return {
            "x": x,
            "y": y,
            "radius": radius * self.grid,
            "color": color,
            "ring": ring,
            "height": value_at(height, self.frame) * self.grid,
            "label": label,
            "name": name,
            "fill": self.level(fill),
            "bars": list(zip(colors, levels, strict=False)),
            "details": list(zip(names, texts, strict=False)),
        }

    def level(self, series):
        level = value_at(series, self.frame)
        return None if level < 0 else level / 100

    def text(self, series):
        return self.data["texts"][value_at(series, self.frame)]

    def shown(self, kind):
        """Return the lines or areas of the frame."""
        for *mark, intervals in self.data[kind]:
            borders = np.cumsum(intervals)
            passed = (borders <= self.frame).sum()
            if passed % 2:
                yield mark

    def place(self, point):
        if not isinstance(point, int):
            return [value * self.grid for value in point]
        differences = self.data["discs"][point][1:3]
        return [self.total(series) * self.grid for series in differences]

    def total(self, series):
        return sum(value_at(series, t) for t in range(self.frame + 1))

    def line(self, color, style, start, end):
        return {
            "color": color,
            "style": style,
            "start": self.place(start),
            "end": self.place(end),
        }

    def area(self, kind, color, opacity, *shape):
        area = {"kind": kind, "color": color, "opacity": opacity}
        if kind == "rectangle":
            return area | {"corners": self.place(shape)}
        center, radius, direction, angle = shape
        return area | {
            "center": self.place(center),
            "radius": radius * self.grid,
            "direction": direction,
            "angle": angle,
        }


def expected_scene(scene):
    """Return a scene in the form that the player uses, without rounding."""
    return {
        "caption": scene.caption,
        "discs": list(map(expected_disc, scene.discs)),
        "lines": list(map(expected_line, scene.lines)),
        "areas": list(map(expected_area, scene.areas)),
    }


def expected_disc(disc):
    names = ("x", "y", "radius", "label", "name", "fill", "height")
    shown = {name: getattr(disc, name) for name in names}
    return shown | {
        "color": to_hex(disc.color),
        "ring": disc.ring and to_hex(disc.ring),
        "bars": [(to_hex(bar.color), bar.fill) for bar in disc.bars],
        "details": disc.details,
    }


def expected_line(line):
    return {
        "color": to_hex(line.color),
        "style": line.style,
        "start": (line.x0, line.y0),
        "end": (line.x1, line.y1),
    }


def expected_area(area):
    shown = area._asdict() | {"color": to_hex(area.color)}
    if isinstance(area, Rectangle):
        corners = [shown.pop(name) for name in ("x0", "y0", "x1", "y1")]
        return shown | {"kind": "rectangle", "corners": corners}
    center = [shown.pop(name) for name in ("x", "y")]
    return shown | {"kind": "sector", "center": center}


def assert_shows(shown, scene):
    """Compare two scenes; the order of lines, and of discs with other names, is free."""
    expected = expected_scene(scene)
    assert shown["caption"] == expected["caption"]
    for kind in ("discs", "lines", "areas"):
        ours = sorted(shown[kind], key=sort_key)
        theirs = sorted(expected[kind], key=sort_key)
        assert len(ours) == len(theirs), kind
        for a, b in zip(ours, theirs, strict=True):
            assert_close({name: a[name] for name in b}, b)


def sort_key(shape):
    if "name" in shape:
        return shape["name"]
    names = ("start", "end", "center")
    coordinates = [x for name in names for x in shape.get(name, [])]
    style = shape.get("kind", shape.get("style"))
    return style, shape["color"], [round(x, 1) for x in coordinates]


def assert_close(a, b):
    if isinstance(b, dict):
        assert a.keys() == b.keys()
        a, b = list(a.values()), list(b.values())
    if isinstance(b, (list, tuple)):
        assert len(a) == len(b)
        for pair in zip(a, b, strict=True):
            assert_close(*pair)
    elif isinstance(b, float):
        assert abs(a - b) <= 0.01 and (a > 0) == (b > 0)
    else:
        assert a == b


@pytest.mark.parametrize("seed", range(4))
def test_the_data_of_a_page_decode_to_the_scenes(seed):
    scenes = random_scenes(seed)
    data = json.loads(json.dumps(page.encode_scenes(scenes)))
    assert data["frames"] == len(scenes)
    assert data["size"] == [WIDTH, HEIGHT]
    for frame, scene in enumerate(scenes):
        assert_shows(Decoder(data, frame).scene(), scene)


def test_coordinates_are_exact_to_half_a_step_of_the_grid():
    scenes = random_scenes(5)
    data = json.loads(json.dumps(page.encode_scenes(scenes)))
    for frame, scene in enumerate(scenes):
        shown = sorted(Decoder(data, frame).discs(), key=sort_key)
        discs = sorted(scene.discs, key=lambda disc: disc.name)
        for a, b in zip(shown, discs, strict=True):
            assert abs(a["x"] - b.x) <= GRID / 2 + 1e-9
            assert abs(a["y"] - b.y) <= GRID / 2 + 1e-9


def test_what_does_not_change_takes_no_space():
    scenes = random_scenes(0, frames=1)
    short = len(page.encode_html(scenes * 2, "", 160))
    long = len(page.encode_html(scenes * 1000, "", 160))
    assert long - short < 500


# The player.


class Tags(html.parser.HTMLParser):
    """Tags of a page with their attributes, and the texts of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        last, _ = self.tags[-1] if self.tags else ("", {})
        if last == "script" and data.strip():
            self.scripts.append(data)


def page_of(scenes):
    return Tags(page.encode_html(scenes, NASTY, 160).decode())


def test_a_page_loads_nothing():
    text = page.encode_html(random_scenes(1), NASTY, 160).decode()
    parsed = Tags(text)
    loading = {"src", "href", "srcset", "action", "data", "poster", "background"}
    for tag, attributes in parsed.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not loading & attributes.keys()
    own = text.replace(parsed.scripts[0], "")
    calls = r"https?:|//\w|url\(|@import|@font-face|import\(|fetch\(|XMLHttp|WebSocket"
    assert not re.search(calls, own)
    policy = next(a["content"] for t, a in parsed.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none';")


def test_texts_of_an_environment_cannot_leave_the_data():
    parsed = page_of(random_scenes(2))
    assert len(parsed.scripts) == 2
    data = json.loads(parsed.scripts[0])
    assert data["title"] == NASTY
    assert "innerHTML" not in parsed.scripts[1]


def played(scenes, times):
    """Return the scenes that the JavaScript of a page shows at some times."""
    return computed(scenes, f"{times}.map(time => sceneAt(episode, time))")


def computed(scenes, expression):
    """Return the value of an expression of JavaScript with the player and its episode."""
    parsed = page_of(scenes)
    program = (
        f"const text = {json.dumps(parsed.scripts[0])};\n{parsed.scripts[1]}\n"
        "const episode = decode(JSON.parse(text));\n"
        f"console.log(JSON.stringify({expression}));"
    )
    command = [shutil.which("node"), "-"]
    result = subprocess.run(command, input=program, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


needs_node = pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")


@needs_node
def test_the_player_decodes_the_scenes():
    scenes = random_scenes(3)
    shown = played(scenes, list(range(len(scenes))))
    for ours, scene in zip(shown, scenes, strict=True):
        assert_shows(ours, scene)


@needs_node
def test_discs_move_between_frames_and_lines_move_with_them():
    def scene(x, fill):
        disc = Disc(x, 5.0, 1.0, "blue", "m", fill, name="moving")
        line = Line(x, 5.0, 9.0, 9.0, "blue")
        return Scene(WIDTH, HEIGHT, (disc,), (line,), "")

    first, second = scene(2.0, 1.0), scene(4.0, 0.5)
    new = Disc(4.0, 2.0, 1.0, "red", "m", 1.0, name="new")
    second = second._replace(discs=(*second.discs, new))
    (middle,) = played([first, second], [0.25])
    moving, new = middle["discs"]
    assert moving["x"] == pytest.approx(2.5, abs=GRID)
    assert moving["fill"] == pytest.approx(0.875)
    assert new["x"] == pytest.approx(4.0, abs=GRID)  # it was absent before
    (line,) = middle["lines"]
    assert line["start"] == pytest.approx([2.5, 5.0], abs=GRID)


# Backgrounds.


def ground_calls(scenes, function):
    """Return the methods of a canvas that a function of the player calls, with arguments."""
    return computed(
        scenes,
        """(() => {
        const calls = [];
        const record = name => (...values) => { calls.push([name, ...values]); };
        const context = new Proxy({}, {get: (_, name) => record(name), set: () => true});
        const view = {left: 0, bottom: 0, scale: 10, width: 200, height: 100};
        """
        f"{function};\nreturn calls; }})()",
    )


def test_a_background_takes_space_once():
    (scene,) = random_scenes(0, frames=1)
    bare = scene._replace(background=BARE)
    costs = []
    for frames in (1, 7, 300):
        with_ground = len(page.encode_html([scene] * frames, "", 160))
        costs.append(with_ground - len(page.encode_html([bare] * frames, "", 160)))
    assert costs[0] == costs[1] == costs[2] > 0


@needs_node
def test_a_frame_does_not_draw_the_background():
    scenes = random_scenes(0, frames=2)
    bare = [scene._replace(background=BARE) for scene in scenes]
    draw = "draw(context, sceneAt(episode, 1), view, {}, NOTHING)"
    frames = [ground_calls(shown, draw) for shown in (scenes, bare)]
    assert frames[0] == frames[1]
    ground = "drawGround(context, episode.ground, view, {})"
    assert len(ground_calls(scenes, ground)) > len(ground_calls(bare, ground))


@needs_node
def test_the_player_draws_the_background_at_its_place():
    scenes = random_scenes(0, frames=1)
    calls = ground_calls(scenes, "drawGround(context, episode.ground, view, {})")
    shapes = {name: values for name, *values in calls}
    assert shapes["fillRect"] == [10, 60, 20, 20]  # from the upper left
    assert shapes["lineTo"] == pytest.approx([190, 95], abs=0.1)
    # The arc goes from 0 to 2 rad counterclockwise, and canvases measure clockwise.
    assert shapes["arc"] == pytest.approx([70, 70, 20, -2, 0], abs=0.1)
    (ground,) = [json.loads(page_of(scenes).scripts[0])["ground"]]
    assert ground["color"] == to_hex("green")


def test_positions_are_measured_from_the_origin():
    (scene,) = random_scenes(0, frames=1)
    data = page.encode_scenes([scene._replace(origin=(10.0, 5.0), y_down=True)])
    assert data["origin"] == (10.0, 5.0, -1)
    assert page.encode_scenes([scene])["origin"] == (0.0, 0.0, 1)


def test_a_page_is_written_by_the_suffix_of_its_file(tmp_path):
    file = tmp_path / "episode.html"
    scenes = [scene._replace(frame_ms=100) for scene in random_scenes(4)]
    video.write_video(scenes, file, "nine steps")
    parsed = Tags(file.read_text("utf-8"))
    data = json.loads(parsed.scripts[0])
    assert data["title"] == "nine steps"
    assert data["ms"] == 100
