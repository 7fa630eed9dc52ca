"""``jmarl report``: what the page loads, shows and escapes, and one-line errors."""

import html.parser
import re

import pytest
from planted_runs import plant, rising

from jmarl.cli.commands import dispatch
from jmarl.cli.process import exit_code
from jmarl.envs.scene import Disc, Scene
from jmarl.saved.comparison.compare_runs import compare_runs
from jmarl.saved.comparison.selection import Options
from jmarl.saved.run_report.config_differences import differences, flatten, without
from jmarl.saved.run_report.write_report import write_report
from jmarl.saved.video import write_video


NASTY = '</title><script>alert(1)</script><img src="http://example.org/x.png">'
LOADS = ("src", "poster", "data", "action", "background", "ping", "srcset")


class Page(html.parser.HTMLParser):
    """Elements, table cells and visible texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.source = text
        self.elements, self.open, self.cells, self.texts = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input", "br"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    @property
    def text(self):
        return "".join(self.texts)

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def row(self, first):
        """Return the cells of the last row that starts with a text, up to six."""
        start = len(self.cells) - 1 - self.cells[::-1].index(first)
        return self.cells[start : start + 6]


def report(out, *patterns, episodes_mb=20, **options):
    """Write a report and return the parsed page."""
    choices = Options(out=str(out / "report.html"), **options)
    path = write_report(
        {"": list(map(str, patterns))}, choices, episodes_mb=episodes_mb
    )
    return Page(path.read_text())


def play(path):
    """Write an episode of two scenes."""
    scenes = [
        Scene(4.0, 4.0, (Disc(x, 1.0, 0.5, "red", label="a"),), (), "") for x in (1, 2)
    ]
    write_video(scenes, path, "It's an episode & <more>")


@pytest.fixture
def two(tmp_path):
    """Make runs of two systems with three seeds, and one that failed."""
    runs = tmp_path / "runs"
    plant(runs / "a", rising(0.6, 0.7, 0.8), system_name="first")
    plant(runs / "b", rising(0.75, 0.84, 0.96), system_name="second", lr=0.3)
    plant(runs / "c", rising(0.1, 0.1), state="failed", system_name="first", seed=7)
    return runs


def loads(page):
    """Return what a page loads from elsewhere, in itself and in its frames."""
    found = [
        value
        for _, attributes in page.elements
        for key, value in attributes.items()
        if key in LOADS and not value.startswith("data:")
    ]
    for frame in page.of("iframe"):
        found += loads(Page(frame["srcdoc"]))
    styles = " ".join(attributes.get("style", "") for _, attributes in page.elements)
    return found + re.findall(r"url\((?!#)[^)]*\)", styles) + page.of("link")


def test_the_page_loads_nothing_and_its_links_lead_somewhere(two, tmp_path):
    play(two / "a" / "episode.html")
    play(two / "b" / "episode.gif")
    page = report(tmp_path, two)
    assert loads(page) == []
    text = (tmp_path / "report.html").read_text()
    assert "@import" not in text and not re.search(r"url\(\s*['\"]?(http|//)", text)
    policies = [x["content"] for x in page.of("meta") if "http-equiv" in x]
    assert policies and policies[0].startswith("default-src 'none'")
    names = [x["id"] for _, x in page.elements if "id" in x]
    assert len(names) == len(set(names))
    for link in page.of("a"):
        target = link["href"]
        assert target.startswith("https://arxiv.org/") or target[1:] in names
    for reference in re.findall(r'(?:xlink:href="|url\()#([\w-]+)', text):
        assert reference in names


def test_only_the_players_of_episodes_have_scripts(two, tmp_path):
    play(two / "a" / "episode.html")
    (two / "a" / "other.html").write_text("<title>x</title><script>1</script>")
    play(two / "b" / "episode.gif")
    page = report(tmp_path, two)
    assert not page.of("script")
    (frame,) = page.of("iframe")
    assert frame["sandbox"] == "allow-scripts"
    assert frame["srcdoc"] == (two / "a" / "episode.html").read_text()
    (image,) = page.of("img")
    assert image["src"].startswith("data:image/gif;base64,")


def test_episodes_without_room_are_named(two, tmp_path):
    play(two / "a" / "episode.html")
    page = report(tmp_path, two, episodes_mb=0)
    assert not page.of("iframe")
    assert "Not on this page, because of its size: episode.html" in page.text


def test_all_runs_appear_and_those_that_do_not_count_are_named(two, tmp_path):
    plant(two / "d", rising(0.6, 0.7, 0.8), system_name="first")
    page = report(tmp_path, two)
    headings = re.findall(r'<h3 id="run-\d">\d. (.*?)</h3>', page.source)
    assert headings == [str(two / name) for name in "abcd"]
    notes = page.text.partition("Contents")[0]
    assert f"left out: {two / 'c'}: failed" in notes
    assert f"{two / 'd'}: seed 0, 1, 2: duplicate of {two / 'a'}" in notes
    used = {}
    for i, name in enumerate("abcd", 1):
        start = page.cells.index(f"{i}.\N{NO-BREAK SPACE}{name}")
        used[name] = page.cells[start + 4 : start + 6]
    assert used["a"] == ["finished", "yes"] and used["c"] == ["failed", "no"]
    assert used["d"] == ["finished", "no"]


def test_numbers_are_those_of_compare(two, tmp_path, capsys):
    page = report(tmp_path, two, margin=0.05)
    capsys.readouterr()
    compare_runs({"": [str(two)]}, Options(margin=0.05))
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("|") and "---" not in line]
    cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")]
    assert len(cells) > 30 and page.cells[: len(cells)] == cells


def test_metrics_of_single_seeds_are_those_of_the_run(two, tmp_path):
    page = report(tmp_path, two / "a")
    assert page.row("greedy/won")[:5] == [
        "greedy/won",
        "0.600",
        "0.700",
        "0.800",
        "0.700",
    ]
    assert "(1,024 episodes of each seed and mode)" in page.text


def test_differences_are_exactly_those_of_the_configurations(two, tmp_path):
    page = report(tmp_path, two)
    start = page.cells.index("key")
    found = page.cells[start : page.cells.index("commit")]
    header = ["key", "runs 1, 3: first", "run 2: second"]
    rows = [["system_name", "first", "second"], ["system.lr", "0.1", "0.3"]]
    assert found[:9] == [*header, *rows[0], *rows[1]]
    assert found[9:] == ["", "runs 1–3"]  # the header of the versions


def test_leaves_are_compared_by_value_and_absence():
    x = flatten({"a": {"b": 1, "c": "x"}, "d": [1, 2], "e": True})
    y = flatten({"a": {"b": 1}, "d": [1, 3], "e": True, "ef": ""})
    assert x == {"a.b": "1", "a.c": "x", "d": "[1, 2]", "e": "true"}
    found = differences([x, y])
    assert found == {
        "a.c": ["x", "–"],
        "d": ["[1, 2]", "[1, 3]"],
        "ef": ["–", "''"],
    }
    assert without(y, ["a", "e"]) == {"d": "[1, 3]", "ef": "''"}


def test_texts_of_a_run_are_escaped(tmp_path):
    words = (f"system.x={NASTY}", "env=$a$b_{$")
    for i in range(2):
        folder = tmp_path / "runs" / f"<b>{i}'\"&amp;"
        env = {"name": NASTY, "text": f"{NASTY}\n"}
        name = f"{NASTY}{i} $x_{{$"
        plant(folder, rising(0.1, 0.2), system_name=name, env=env, words=words)
    page = report(tmp_path, tmp_path / "runs", by="run")
    assert not page.of("script") and not page.of("img") and not page.of("b")
    assert loads(page) == []
    assert NASTY in page.text and "$x_{$" in page.text


def test_a_single_seed_has_a_page_without_statistics(tmp_path):
    plant(tmp_path / "a", rising(0.5), system_name="single", words=["env=x"])
    page = report(tmp_path, tmp_path / "a")
    assert "No statistics over seeds: single: 1 seed on probe_bandit" in page.text
    assert len(page.of("svg")) == 1 and "Learning curves." in page.text
    assert "jmarl train single env=x" in page.text
    summaries = re.findall(r"Configuration \((\d+) keys\)", page.text)
    assert len(summaries) == 1 and int(summaries[0]) > 20


def test_a_run_without_evaluations_has_a_page(tmp_path):
    plant(tmp_path / "a", [[0.5]], state="failed")
    (tmp_path / "a" / "metrics.jsonl").write_text("")
    page = report(tmp_path, tmp_path / "a")
    assert "no run has an evaluation" in page.text and "failed" in page.text


def test_without_a_win_rate_the_return_is_compared(two, tmp_path):
    for name in "ab":
        path = two / name / "metrics.jsonl"
        path.write_text(re.sub(r'"\w+/won": \[[^]]*\], ', "", path.read_text()))
    page = report(tmp_path, two / "a", two / "b")
    assert "greedy return on probe_bandit" in page.text


def test_the_command_takes_runs_as_compare_does(two, tmp_path, capsys):
    out = tmp_path / "page.html"
    words = [f"runs={two}/a", f"x={two}/b", "by=system", f"out={out}"]
    assert dispatch(["report", *words]) == 0
    assert f"wrote {out}: " in capsys.readouterr().out
    page = Page(out.read_text())
    assert f"jmarl report runs={two}/a" in page.text
    assert page.cells[page.cells.index("group") + 6] == "first"


MISTAKES = {
    "no runs named": (["out={root}/x.html"], "report: names no runs"),
    "empty glob": (["{root}/nothing/*"], "matches no runs; name run folders"),
    "unknown key": (
        ["{root}", "metrc=won"],
        "metrc is no key of jmarl report; did you",
    ),
    "metric": (["{root}", "metric=win"], "unknown metric; did you mean won?"),
    "against": (["{root}", "against=frist"], "no such group; did you mean first?"),
    "suffix": (["{root}", "out={root}/x.pdf"], "must be the path of a page"),
    "no folder": (
        ["{root}", "out={root}/no/x.html"],
        "name a file in an existing folder",
    ),
    "episodes": (["{root}", "episodes_mb=-1"], "episodes_mb=-1: must"),
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line_and_exit_with_two(
    two, words, message, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    filled = [word.format(root=two) for word in words]
    assert exit_code(lambda: dispatch(["report", *filled])) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("error: ")
    assert not list(tmp_path.glob("*.html"))


def test_different_environments_need_a_choice(two, tmp_path, capsys):
    plant(two / "e", rising(0.2, 0.3), env={"name": "probe_cue"}, system_name="first")
    out = f"out={tmp_path / 'x.html'}"
    assert exit_code(lambda: dispatch(["report", str(two), out])) == 2
    error = capsys.readouterr().err
    assert "2 environments (probe_bandit, probe_cue)" in error
    assert error.count("\n") == 1
    assert dispatch(["report", str(two), out, "env=probe_bandit"]) == 0
    text = (tmp_path / "x.html").read_text()
    assert str(two / "e") in text and "The statistics are on probe_bandit." in text
