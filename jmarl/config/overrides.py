"""Arguments of the command line as overrides for Hydra.

Choices, keys and syntax are checked here, so that errors name the argument as it was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jmarl.config.accepted import check_network
from jmarl.config.choices import GROUPS, check_choice, check_system, systems
from jmarl.config.errors import ConfigError, suggest
from jmarl.config.parsing import split_argument
from jmarl.config.reference import documented_keys
from jmarl.config.yaml_files import expand_presets


MULTIRUN = ("-m", "--multirun", "sweep=", "hydra.mode=")
"""Prefixes of arguments that request several runs."""
TEXT_KEYS = (
    "run_dir",
    "resume",
    "init_from",
    "arch.compile_cache",
    "logger.wandb_project",
)
"""Keys of free text. Their values are taken as written, except ``${...}`` and ``null``."""
_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)


def to_hydra_overrides(system: str, arguments: Iterable[str]) -> list[str]:
    """Translate arguments of the command line to overrides for Hydra.

    ``env=<name>`` becomes ``env.name=<name>``, so that an environment needs no YAML file.
    ``experiment=<path>`` becomes the overrides of a user's own preset.
    Values are forced with ``++``, so that ``build`` reports unknown keys and suggests a fix.
    Text is quoted, so that paths may contain any character. Flags, deletions (``~key``) and
    overrides of Hydra's own keys stay unchanged.

    Raises:
        ConfigError: If the system or a choice is unknown, a network does not fit the system,
            or an argument cannot be read.
    """
    check_system(system, f"system={system}")
    given = expand_presets(arguments)
    several = any(argument.startswith(MULTIRUN) for argument in given)
    overrides = [_to_hydra_override(system, a, several=several) for a in given]
    return [f"system={system}", *overrides]


def _to_hydra_override(system: str, argument: str, *, several: bool) -> str:
    if re.match(r"-|\+*~?hydra[./]", argument):
        return argument
    if argument.startswith("~"):
        _check_key(system, argument[1:].partition("=")[0], argument)
        return argument
    key, value = split_argument(argument)
    _check_key(system, key, argument)
    if key in ("system", "algorithm"):
        fix = "leave it out"
        if value in systems():
            fix = f"start that system with: jmarl train {value}"
        raise ConfigError(f"{argument}: cannot be overridden; {fix}")
    if key == "network.name":
        raise ConfigError(f"{argument}: cannot be overridden; use network=<choice>")
    override = _force(system, key, value, several=several)
    _check_syntax(argument, override, several=several)
    return override


def _check_key(system: str, key: str, argument: str) -> None:
    if not _KEY.fullmatch(key):
        fix = suggest(key, documented_keys(system), "--help lists the keys")
        raise ConfigError(f"{argument}: unknown key; {fix}")


def _force(system: str, key: str, value: str, *, several: bool) -> str:
    if key not in GROUPS:
        value = _quote(value, several=several) if key in TEXT_KEYS else value
        return f"++{'env.name' if key == 'env' else key}={value}"
    if "(" not in value:  # else an expression for a sweep, such as glob(smax*)
        for choice in map(str.strip, value.strip("[]").split(",")):
            if key == "network":
                check_network(system, choice)
            else:
                check_choice(key, choice)
    return f"{key}={value}"


def _quote(text: str, *, several: bool) -> str:
    """Quote text for Hydra's grammar. In a sweep, commas separate texts."""
    if text in ("", "null") or text[0] in "'\"":
        return text
    texts = re.split(r",(?![^{]*\})", text) if several else [text]  # not within ${...}
    escaped = (re.sub(r"(\\*)('|$)", _escape_quote, text) for text in texts)
    return ",".join(f"'{text}'" for text in escaped)


def _escape_quote(found: re.Match[str]) -> str:
    """Double the backslashes before a quote or the end, and escape the quote."""
    backslashes, quote = found.groups()
    return 2 * backslashes + quote.replace("'", r"\'")


def _check_syntax(argument: str, override: str, *, several: bool) -> None:
    """Check an override with the grammars of Hydra and OmegaConf."""
    try:
        parsed = OverridesParser.create().parse_override(override)
        OmegaConf.create([argument])
    except (HydraException, OmegaConfBaseException, ValueError):
        rule = "cannot be read; close its brackets and quotes, or add a second pair of quotes"
        raise ConfigError(f"{argument}: {rule}") from None
    if parsed.is_sweep_override() and not several:
        rule = "has several values; add -m for a sweep, or brackets for a list"
        raise ConfigError(f"{argument}: {rule}")
