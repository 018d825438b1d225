# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a failure says: its text without secrets, and the fix where the cause is known.

Runs on controller and host with nothing but Python's own library: the command `tradingbot` has a copy.
"""

from __future__ import annotations

import contextlib
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MASK = "********"
# A shorter value would mask words that are no secret.
SHORTEST_SECRET = 6
# As short as the tokens of services are, and longer than names of people and things mostly are.
SHORTEST_TOKEN = 16
MOST_LINES = 20
MOST_CHARACTERS = 3000
# Also without knowing a value: passwords in URLs and statements, what PostgreSQL and Redis keep of passwords, tokens.
_SHAPES = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"(\w://[^\s:/@]*):[^\s@]+@"), rf"\1:{MASK}@"),
    (re.compile(r"SCRAM-SHA-256\$\S*"), MASK),
    # What an excerpt leaves of a verifier `salt==$key=:key=`: no path has its separators, which begin with padding.
    (
        re.compile(
            r"(?:[A-Za-z0-9+/]{16,43}(?:==\$|=:)[A-Za-z0-9+/]{0,43}|[A-Za-z0-9+/]{0,15}(?:==\$|=:)[A-Za-z0-9+/]{30,43})"
            r"(?:=:[A-Za-z0-9+/]{1,43})?=?"
        ),
        MASK,
    ),
    (re.compile(r"(\bPASSWORD\s+)'(?:[^']|'')*'?", re.IGNORECASE), rf"\1'{MASK}'"),
    (re.compile(r"#[0-9a-f]{64}\b"), f"#{MASK}"),
    (re.compile(r"\b(tb[a-z]_)[A-Za-z0-9_-]{16,}"), rf"\1{MASK}"),
)
SPACE = (
    "`df -h` and `df -i` show which; free space, or make it larger; `tradingbot clean` on a host removes unused images"
)
# What a text holds, what that means, and the fix.
CAUSES: tuple[tuple[str, str, str], ...] = (
    (r"no space left on device|could not extend file|ENOSPC", "a file system is full", SPACE),
    (r"disk quota exceeded|EDQUOT", "a disk quota is used up", "raise the quota, or free what it counts"),
    (
        r"read-only file system|EROFS",
        "a file system is read-only",
        "`dmesg` on the host says why; mend it, and mount it for writing",
    ),
    (
        r"port is already allocated|address already in use|failed to bind host port",
        "a port is taken",
        "`ss -tlnp` on the host names who has it: stop that, or publish another port",
    ),
    (
        r"exec format error",
        "the image is made for another architecture",
        "use an image for this host's: `uname -m`",
    ),
    (
        r"executable file not found|exec: .*no such file or directory",
        "the image lacks the program to start",
        "check the name and tag of the image",
    ),
    (
        r"cannot connect to the docker daemon|is the docker daemon running",
        "the Docker engine does not answer",
        "`systemctl status docker` on the host says why",
    ),
    # What Ansible's `command` says, without the folder's name.
    (
        r"unable to change directory",
        "the project's folder is gone",
        "`site.yml` without --tags makes it again",
    ),
)
_PROGRESS = re.compile(r"\s*(Container|Network|Volume|Image) \S+\s+(?!Error)[A-Z]\w+\s*$")
# What PostgreSQL, a shell and Docker end with, beside a program's own codes.
EXIT_CODES = {
    125: "Docker could not run it",
    126: "the program could not be started",
    127: "there is no such program",
    137: "it was killed (SIGKILL), as the kernel does when memory runs out",
    139: "it crashed (SIGSEGV)",
    143: "it was told to end (SIGTERM)",
}
# What Ansible says of every failure.
_WRAPPING = re.compile(r"^(?:(?:Task|Action|Module) failed: )*(?:Unknown error\.$|non-zero return code$)?")


def texts(values: Iterable[object]) -> Iterator[str]:
    """Yield *values* as texts, those within dicts and lists one by one."""
    for value in values:
        if isinstance(value, Mapping):
            yield from texts(value.values())
        elif isinstance(value, (list, tuple, set)):
            yield from texts(value)
        else:
            yield str(value)


def known_secrets(values: Iterable[object]) -> set[str]:
    """Return all forms in which secret values may stand in a text: whole, line by line, and their secret parts alone.

    Those are the passwords of URLs and of PostgreSQL's password file, and what is as long as a token in another URL
    than a database's, whose user, host and path are no secrets.
    """
    found: set[str] = set()
    for text in texts(values):
        forms = {text, *text.splitlines()}
        # host:port:database:user:password
        forms |= {re.sub(r"\\(.)", r"\1", part) for part in re.findall(r"^(?:[^:/\s]*:){4}(.+)$", text, re.MULTILINE)}
        for url in [part for part in text.split() if "://" in part]:
            parts = re.findall(r"://[^\s:/@]*:([^\s@]+)@", url)
            forms |= {form for part in parts for form in (part, urllib.parse.unquote(part))}
            if not url.startswith(("postgres", "redis")):
                tokens = re.split(r"[^\w-]+", f"{url} {urllib.parse.unquote(url)}")
                forms |= {token for token in tokens if len(token) >= SHORTEST_TOKEN}
        stripped = {form.strip() for form in forms}
        found |= stripped | {urllib.parse.quote(form, safe="") for form in stripped}
    return {form for form in found if len(form) >= SHORTEST_SECRET}


def without_secrets(text: str, values: Iterable[object] = ()) -> str:
    """Return *text* with *values*, and all that looks like a secret of the stack, masked."""
    for form in sorted(known_secrets(values), key=len, reverse=True):
        text = text.replace(form, MASK)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def end_of(text: str, lines: int = MOST_LINES, characters: int = MOST_CHARACTERS) -> str:
    """Return the last lines of *text*, without blank ones, colours of a terminal, and Compose's progress."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    said = [line.rstrip() for line in plain.splitlines() if line.strip() and not _PROGRESS.match(line)]
    end = "\n".join(said[-lines:])
    # Whole lines, but for one that is too long alone.
    return end if len(end) <= characters else end[-characters:].partition("\n")[2] or end[-characters:]


def causes(text: str) -> list[str]:
    """Return a sentence with the fix for each known cause that *text* shows."""
    return [
        f"That means: {meaning}. Fix: {fix}."
        for pattern, meaning, fix in CAUSES
        if re.search(pattern, text, re.IGNORECASE)
    ]


def described(text: str, secrets: Iterable[object] = ()) -> str:
    """Return *text* without secrets, with the fix of each cause that it shows."""
    plain = without_secrets(text, secrets)
    return "\n".join([plain, *(cause for cause in causes(plain) if cause not in plain)])


def failure_text(result: Mapping[str, Any], secrets: Iterable[object] = ()) -> str:
    """Return what the result of a failed task says, without its arguments, contents and secrets."""
    failed = [one for one in result.get("results") or [] if isinstance(one, Mapping) and one.get("failed")]
    said = list(dict.fromkeys(part for one in failed or [result] for part in _parts(one, secrets)))
    return described("\n".join(said) or "it failed and said nothing", secrets)


def _parts(result: Mapping[str, Any], secrets: Iterable[object]) -> list[str]:
    code = result.get("rc")
    meaning = EXIT_CODES.get(code, "") if isinstance(code, int) else ""
    streams = ("stderr", "module_stderr", "stdout", "module_stdout")
    texts = [_WRAPPING.sub("", str(result.get("msg") or "")), *(str(result.get(name) or "") for name in streams)]
    # Masked as a whole: half of a secret is not recognised.
    parts = [end_of(without_secrets(text, secrets)) for text in texts]
    if code:
        parts.insert(1, f"exit code {code}{f': {meaning}' if meaning else ''}")
    return [part for part in parts if part]


@contextlib.contextmanager
def naming(path: object) -> Iterator[None]:
    """Let an OSError of the body name *path*, and not a temporary file beside it, or none at all."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def os_error(error: OSError) -> tuple[str, str]:
    """Return why the system has refused something, and the fix."""
    told = os.strerror(error.errno) if error.errno else str(error)
    where = f"{error.filename}: " if error.filename else ""
    for pattern, meaning, fix in CAUSES:
        if re.search(pattern, told, re.IGNORECASE):
            return f"{where}{told}, {meaning}", fix
    return f"{where}{told}", f"look at it: `ls -ld {error.filename or '<folder>'}`"


def os_error_text(error: OSError) -> str:
    """Return the same as a sentence."""
    return "{}. Fix: {}".format(*os_error(error))
