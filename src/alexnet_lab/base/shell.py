"""Commands for users to paste, quoted for bash and zsh and for Hydra's grammar."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

PLAIN = re.compile(r"[A-Za-z_./][\w./@%+-]*", re.ASCII)
"""Values that mean the same with and without quotes in Hydra's grammar, unless they are `KEYWORDS`."""

KEYWORDS = ("null", "true", "false", "inf", "nan")

SCRIPTS = ("train.py", "eval.py", "report.py", "export.py")

UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|(?<= ) |^ | $")
"""Characters that a message cannot display, and spaces that it would merge."""


def override(key: str, value: object) -> str:
    """`key=value` in Hydra's grammar, for any text.

    Example:
        >>> override("resume", "logs/runs/A"), override("resume", "logs/a=b")
        ('resume=logs/runs/A', "resume='logs/a=b'")
    """
    return f"{key}={_text(str(value))}"


def _text(text: str) -> str:
    return text if PLAIN.fullmatch(text) and text.lower() not in KEYWORDS else quoted(text)


def quoted(text: str, sign: str = "'") -> str:
    r"""Quotes a value for Hydra's grammar, whatever characters it contains.

    Example:
        >>> quoted("a=b"), quoted("it's"), quoted("a\\")
        ("'a=b'", "'it\\'s'", "'a\\\\'")
    """
    escaped = re.sub(rf"(\\*)({sign}|\Z)", lambda found: 2 * found[1] + (f"\\{sign}" if found[2] else ""), text)
    return f"{sign}{escaped}{sign}"


def override_key(word: str) -> str:
    """The key of a word of Hydra's grammar.

    Example:
        >>> override_key("+callbacks.ema._target_=my.EMA"), override_key("~optimizer")
        ('callbacks.ema._target_', 'optimizer')
    """
    return word.lstrip("+~").partition("=")[0]


def value_override(key: str, value: Any) -> str:
    """`key=value` in Hydra's grammar, for any value of a YAML file; texts stay texts.

    Example:
        >>> value_override("freeze", ["c1,c3"]), value_override("tags", {"a": None, "b": [1, "x y"]})
        ("freeze=['c1,c3']", "tags={a:null,b:[1,'x y']}")
    """
    return f"{key}={_in_grammar(value)}"


def _in_grammar(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_in_grammar(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_in_grammar, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def to_type(key: str, value: str) -> str:
    r"""What to type in a shell to set a key to a text, quoted for the shell and for Hydra.

    Example:
        >>> to_type("logger.name", "a=b")
        '\'logger.name="a=b"\''
    """
    return shlex.quote(f"{key}={quoted(value, chr(34))}")


def command(script: str, *words: str) -> str:
    """A command line for a script of this repository, with the interpreter and folder that the user chose.

    Args:
        script: Such as `train.py`.
        words: Its arguments, unquoted.

    Example:
        >>> command("eval.py", "figures=[kernels,top5]")
        "python eval.py 'figures=[kernels,top5]'"
    """
    started = Path(sys.argv[0])
    if sys.argv[0] in sys.orig_argv and started.suffix == ".py" and started.with_name(script).is_file():
        before = sys.orig_argv[: sys.orig_argv.index(sys.argv[0])]
        return join([*before, str(started.with_name(script)), *words])
    return join(["python", script, *words])


def runs_script() -> bool:
    """Whether a script of this repository started this process, as opposed to a notebook or a test."""
    return Path(sys.argv[0]).name in SCRIPTS


def typed() -> str:
    """The command that started this process."""
    if sys.argv[0] in sys.orig_argv:
        return join(sys.orig_argv)
    return join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])


def join(words: list[str]) -> str:
    """Joins words to one line that a shell splits into the same words."""
    return " ".join(_quote(word) for word in words)


def _quote(word: str) -> str:
    if UNSEEN.search(word):
        return "$'" + UNSEEN.sub(_escape, word.replace("\\", "\\\\").replace("'", "\\'")) + "'"
    if "'" in word and not re.search(r'["$`\\!]', word):
        return f'"{word}"'
    return shlex.quote(word)


def _escape(match: re.Match[str]) -> str:
    """Writes bytes in octal, which bash and zsh read alike."""
    return "".join(f"\\{byte:03o}" for byte in match.group().encode("utf-8", "surrogateescape"))


def split(line: str) -> list[str]:
    """The words of a line of `join` or `shlex.join`.

    Raises:
        ValueError: A quotation has no end.
    """
    return shlex.split(QUOTATION.sub(lambda found: found[0] if found[1] is None else _plain(found[1]), line))


QUOTATION = re.compile(r"""\$'((?:[^'\\]|\\.)*)'|'[^']*'|"(?:[^"\\]|\\.)*"|\\.""", re.DOTALL)
"""A quoted part of a line; the group is what is between `$'` and `'`, which shlex does not know."""


def _plain(escaped: str) -> str:
    """The same text in ordinary quotes: the inverse of `_escape` and of the backslashes before it."""
    content = escaped.encode("utf-8", "surrogateescape")
    content = re.sub(
        rb"\\([0-7]{3}|[\\'])", lambda found: bytes([int(found[1], 8)]) if found[1].isdigit() else found[1], content
    )
    return shlex.quote(content.decode("utf-8", "surrogateescape"))
