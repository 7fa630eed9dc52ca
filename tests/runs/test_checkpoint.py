"""Checkpoints: what comes back is what was saved, or it is refused in words."""

import os
import pathlib
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.config import ConfigError
from jmarl.runs.checkpoint import Checkpoints, digest, leaf_paths


def state(scale=1.0):
    return {
        "params": {
            "kernel": scale * jax.random.normal(jax.random.key(1), (64, 65)),
            "bias": jnp.zeros(3),
        },
        "half": jnp.arange(4, dtype=jnp.bfloat16),
        "flags": (jnp.array([True, False]), jnp.zeros((2, 0, 5))),
        "count": jnp.uint32(7),
        "key": jax.random.split(jax.random.key(0), 3),
    }


def opened(folder, warnings=None, **options):
    warn = (lambda line: pytest.fail(line)) if warnings is None else warnings.append
    return Checkpoints(folder, **{"keep": 3, "verify": True, "warn": warn, **options})


@pytest.fixture
def two_steps(tmp_path):
    """Steps 1 and 2, of different states."""
    checkpoints = opened(tmp_path / "checkpoints")
    checkpoints.save(1, state(1.0), {"of": 1})
    checkpoints.save(2, state(2.0), {"of": 2})
    checkpoints.close()
    return tmp_path / "checkpoints"


def restored(folder, like=None, **options):
    checkpoints = opened(folder, **options)
    try:
        return checkpoints.restore(jax.eval_shape(state) if like is None else like)
    finally:
        checkpoints.close()


def data_files(step: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        (f for f in (step / "state").rglob("d/*")), key=lambda f: f.stat().st_size
    )


def test_everything_comes_back_bit_for_bit(two_steps):
    result = restored(two_steps)
    assert result is not None
    assert (result.step, result.meta) == (2, {"of": 2})
    assert jax.tree.structure(result.state) == jax.tree.structure(state())
    assert digest(result.state) == digest(state(2.0))
    assert result.state["key"].dtype == state()["key"].dtype


def test_saving_is_not_disturbed_by_what_happens_to_the_arrays_afterwards(tmp_path):
    checkpoints = opened(tmp_path)
    x = jnp.ones(1 << 16)
    checkpoints.save(1, {"x": x}, {})
    jax.jit(lambda x: x * 2, donate_argnums=0)(x).block_until_ready()
    result = checkpoints.restore({"x": jax.ShapeDtypeStruct((1 << 16,), jnp.float32)})
    assert result is not None
    np.testing.assert_array_equal(result.state["x"], 1.0)
    checkpoints.close()


def test_no_checkpoint_is_no_error(tmp_path):
    assert restored(tmp_path) is None


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_flipped_bit_is_caught_and_the_step_before_is_taken(two_steps, place):
    file = data_files(two_steps / "2")[-1]
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    file.write_bytes(content)
    warnings = []
    result = restored(two_steps, warnings=warnings)
    assert result.step == 1 and digest(result.state) == digest(state(1.0))
    assert "checkpoint 2 is damaged" in warnings[0]


@pytest.mark.xfail(
    reason="defective twin: without the digest a flipped bit comes back as data",
    strict=True,
    raises=AssertionError,
)
def test_a_flipped_bit_without_verification(two_steps):
    file = data_files(two_steps / "2")[-1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    result = restored(two_steps, verify=False, warnings=[])
    assert digest(result.state) in (digest(state(1.0)), digest(state(2.0)))


def test_every_truncated_file_is_harmless(two_steps, tmp_path):
    """A file cut to half is either noticed, and step 1 is taken, or was not needed for step 2."""
    saved = {
        f: f.read_bytes()
        for f in (two_steps / "2").rglob("*")
        if f.is_file() and f.stat().st_size > 1
    }
    steps = set()
    for file, content in saved.items():
        os.truncate(file, len(content) // 2)
        result = restored(two_steps, warnings=[], read_only=True)
        steps.add(result.step)
        assert digest(result.state) == digest(state(float(result.step)))
        file.write_bytes(content)
    assert 1 in steps


def test_when_nothing_is_valid_the_error_says_so(two_steps):
    for step in ("1", "2"):
        os.truncate(two_steps / step / "record" / "metadata", 10)
    with pytest.raises(
        ConfigError, match="none of the checkpoints 2, 1 can be restored"
    ):
        restored(two_steps, warnings=[])


def changed(**leaves):
    return jax.eval_shape(lambda: {**state(), **leaves})


@pytest.mark.parametrize(
    ("like", "words"),
    [
        (
            changed(half=jnp.zeros(4)),
            "half is bfloat16[4] but this configuration needs float32[4]",
        ),
        (
            changed(count=jnp.int32(0)),
            "count is uint32[] but this configuration needs int32[]",
        ),
        (
            changed(half=jnp.zeros(5, jnp.bfloat16)),
            "half is bfloat16[4] but this configuration needs bfloat16[5]",
        ),
        (changed(more=jnp.zeros(1)), "more is missing"),
        (
            {"half": jax.eval_shape(state)["half"]},
            "count is not part of this configuration",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_words(two_steps, like, words):
    with pytest.raises(ConfigError) as error:
        restored(two_steps, like)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_the_newest_are_kept_and_a_step_may_be_written_again(tmp_path):
    checkpoints = opened(tmp_path, keep=2)
    for step in (1, 2, 3, 3):
        checkpoints.save(step, state(step), {})
    checkpoints.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]
    assert digest(restored(tmp_path).state) == digest(state(3))


def test_a_step_that_cannot_be_written_again_stays(tmp_path, monkeypatch):
    warnings = []
    checkpoints = opened(tmp_path, warnings, keep=1)
    checkpoints.save(1, state(1.0), {})
    checkpoints.close()
    checkpoints = opened(tmp_path, warnings, keep=1)
    with monkeypatch.context() as patch:

        def refuse(*_, **__):
            raise OSError("No space left on device")

        patch.setattr("orbax.checkpoint.CheckpointManager.save", refuse)
        checkpoints.save(1, state(2.0), {})
    checkpoints.close()
    assert "No space left" in warnings[0]
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
    assert digest(restored(tmp_path).state) == digest(state(1.0))


def test_a_step_is_returned_to_a_run_that_was_killed_while_writing_it_again(two_steps):
    (two_steps / "2").rename(two_steps / ".aside-2")
    assert restored(two_steps, read_only=True).step == 1
    assert restored(two_steps).step == 2


def test_a_step_that_cannot_be_removed_is_a_warning(two_steps, monkeypatch):
    def refuse(*_, **__):
        raise OSError("busy")

    warnings = []
    checkpoints = opened(two_steps, warnings)
    with monkeypatch.context() as patch:
        patch.setattr("jmarl.runs.checkpoint.shutil.rmtree", refuse)
        checkpoints.discard_after(1)
    checkpoints.close()
    assert "checkpoint 2 could not be removed: OSError: busy" in warnings[0]


def test_discarding_leaves_the_step_that_was_restored(two_steps):
    checkpoints = opened(two_steps)
    checkpoints.discard_after(1)
    checkpoints.close()
    assert restored(two_steps).step == 1


def test_what_an_interrupted_write_left_is_removed_by_a_writer_only(two_steps):
    left = two_steps / "3.orbax-checkpoint-tmp"
    left.mkdir()
    assert restored(two_steps, read_only=True).step == 2
    assert left.exists()
    assert restored(two_steps).step == 2
    assert not left.exists()


def test_a_full_disk_is_a_warning_and_the_step_before_survives(two_steps):
    """The limit of a file's size stands in for the disk's."""
    warnings = []
    checkpoints = opened(two_steps, warnings)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        checkpoints.save(3, state(3.0), {})
        checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert warnings and "training goes on" in warnings[0]
    assert restored(two_steps).step == 2


def test_paths_name_leaves_as_a_reader_would():
    assert "params/kernel" in leaf_paths(state())
    assert "flags/0" in leaf_paths(state())
