# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""A failure explains itself, and shows no secret: also that of a task whose result Ansible hides."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tradingbot.stack.plugins.lookup.failure import SECRET
from ansible_collections.tradingbot.stack.plugins.module_utils import failures
from forked import ansible

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "superuser-0123456789abcdef-0123456789"
SECRETS = {
    "postgres_superuser_password": PASSWORD,
    "postgres_owner_password": "keeper-0123456789abcdef-0123456789",
    "postgres_password": "owner-0123456789abcdef-0123456789",
    "postgres_readonly_password": "reader-0123456789abcdef-0123456789",
}


TOKEN = "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw_-x"
# Of 32 bytes, as a verifier has them, without its padding.
KEY = "X1x2Y3y4Z5z6a7b8c9d0e1f2g3h4i5j6k7l8m9n0o1+"
EXPLAINS = "lookup('tradingbot.stack.failure', ansible_failed_result)"


def hidden_tasks(tasks: list[dict[str, Any]], explained: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the name of each task and block under no_log, and whether the rescue of a block around it explains it."""
    for task in tasks:
        rescue = task.get("rescue", [])
        if task.get("no_log"):
            yield str(task["name"]), explained
        # The findings of nginx's preflight are in the role's variables.
        here = explained or EXPLAINS in str(rescue) or "__nginx_tls_unreadable" in str(rescue)
        yield from hidden_tasks(task.get("block", []), here)
        for part in (rescue, task.get("always", [])):
            yield from hidden_tasks(part, explained)


def test_every_task_whose_result_is_hidden_is_explained() -> None:
    files = [
        *ROOT.glob("roles/*/tasks/*.yml"),
        *ROOT.glob("roles/*/handlers/*.yml"),
        *ROOT.glob("playbooks/tasks/*.yml"),
    ]
    found = {file: yaml.safe_load(file.read_text()) or [] for file in files}
    for playbook in ROOT.glob("playbooks/*.yml"):
        parts = ("pre_tasks", "tasks", "post_tasks", "handlers")
        found[playbook] = [
            task for play in yaml.safe_load(playbook.read_text()) for part in parts for task in play.get(part, [])
        ]
    hidden = [(file.name, *one) for file, tasks in found.items() for one in hidden_tasks(tasks)]
    assert len(hidden) >= 10
    assert [one for one in hidden if not one[2]] == []
    assert EXPLAINS in (ROOT / "roles/nginx/vars/main.yml").read_text()


def test_a_hidden_task_without_explanation_is_found() -> None:
    hidden = {"name": "a", "no_log": True}
    rescue = [{"ansible.builtin.fail": {"msg": f"{{{{ {EXPLAINS} }}}}"}}]
    assert list(hidden_tasks([{"block": [hidden], "rescue": [{"fail": {"msg": "no"}}]}])) == [("a", False)]
    assert list(hidden_tasks([{"block": [], "rescue": [hidden, *rescue]}])) == [("a", False)]
    assert list(hidden_tasks([{"block": [{"block": [hidden], "always": []}], "rescue": rescue}])) == [("a", True)]


def test_every_secret_variable_is_masked() -> None:
    names = []
    for specification in ROOT.glob("roles/*/meta/argument_specs.yml"):
        options = yaml.safe_load(specification.read_text())["argument_specs"]["main"]["options"]
        names += [name for name, option in options.items() if option.get("no_log")]
    assert len(names) >= 10
    assert [name for name in [*names, "nginx_tls_private_key", "vault_any"] if not SECRET.fullmatch(name)] == []
    assert [
        name for name in ("nginx_tls_certificate", "backend_public_url", "postgres_user") if SECRET.fullmatch(name)
    ] == []


VERSION = json.dumps({"Client": {"Version": "26.1.5"}, "Server": {"Version": "26.1.5", "ApiVersion": "1.45"}})
DOCKER = f"""#!/bin/sh
case "$*" in
  *"compose version"*) echo '{{"version": "2.26.1"}}' ;;
  *version*) echo '{VERSION}' ;;
  *" exec "*|*" run "*|*" up "*) cat > /dev/null; . ./answer ;;
  *) echo '[]' ;;
esac
"""


def play(folder: Path, tasks: list[dict[str, Any]], answers: dict[str, str], **variables: Any) -> dict[str, str]:
    """Run tasks on made-up hosts, whose `docker` answers with a piece of shell; return what each of them says last."""
    program = folder / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER)
    program.chmod(0o755)
    hosts = {}
    for name, answer in answers.items():
        project = folder / name
        project.mkdir()
        (project / "answer").write_text(answer)
        (project / "compose.yaml").write_text("services: {}\n")
        hosts[name] = {f"{role}_project_dir": str(project) for role in ("postgres", "redis", "nginx", "backend")}
    common = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable} | SECRETS | variables
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": common}}))
    (folder / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    arguments = [str(folder / "play.yml"), "--inventory", str(folder / "hosts.yml"), "--forks", "8"]
    environment = {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = ansible("ansible-playbook", *arguments, **environment)
    output = done.stdout + done.stderr
    assert [value for value in SECRETS.values() if value in output] == []
    found = dict(re.findall(r"^fatal: \[(\w+)\].* => (\{.*\})$", output, re.MULTILINE))
    assert set(found) == set(answers), output
    return {name: str(json.loads(said).get("msg", "")) for name, said in found.items()}


def test_postgresql_that_is_not_as_wanted_says_why(tmp_path: Path) -> None:
    leaks = f"ALTER ROLE x PASSWORD '{SECRETS['postgres_password']}'"
    answers = {
        "memory": "echo 'psql: out of memory' >&2; exit 1",
        "killed": "echo Killed >&2; exit 137",
        "lacking": "echo 'exec: psql: executable file not found' >&2; exit 126",
        "stopped": "echo 'service postgres is not running' >&2; exit 1",
        "starting": "echo 'FATAL: the database system is starting up' >&2; exit 2",
        "full": f'echo "ERROR: could not extend file: No space left on device: {leaks}" >&2; exit 3',
        "changed": "echo 'FATAL: password authentication failed' >&2; exit 2",
        "gone": "rm -r ../gone; exit 1",
    }
    tasks: list[dict[str, Any]] = [
        {
            "ansible.builtin.file": {"path": "{{ postgres_project_dir }}", "state": "absent"},
            "when": "inventory_hostname == 'gone'",
        },
        {"ansible.builtin.include_role": {"name": "tradingbot.stack.postgres", "tasks_from": "apply"}},
        {"ansible.builtin.fail": {"msg": "went on with {{ __postgres_apply.rc }}"}},
    ]
    found = play(tmp_path, tasks, answers)
    assert found["memory"] == "exit code 1\npsql: out of memory"
    assert found["killed"].startswith("exit code 137: it was killed (SIGKILL)")
    assert "That means: the image lacks the program to start" in found["lacking"]
    assert found["stopped"].endswith("service postgres is not running")
    assert found["starting"] == "exit code 2\nFATAL: the database system is starting up"
    assert "could not extend file" in found["full"]
    assert "That means: a file system is full. Fix: `df -h`" in found["full"]
    assert found["changed"] == "went on with 2"
    assert found["gone"] == f'"{tmp_path}/gone" is not a directory'


@pytest.mark.parametrize(("role", "file"), [("postgres", "postgres_pgpass"), ("redis", "redis_acl")])
def test_secrets_that_cannot_be_written_say_why(tmp_path: Path, role: str, file: str) -> None:
    tasks = yaml.safe_load((ROOT / f"roles/{role}/tasks/configure.yml").read_text())
    hidden = [task for task in tasks if "block" in task]
    # A folder in the place of the file.
    folder = {"path": f"{{{{ {role}_project_dir }}}}/secrets/{file}", "state": "directory"}
    variables = {f"__{role}_secrets": {file: "{{ postgres_password }}"}, f"__{role}_uid": os.getuid()}
    variables[f"__{role}_gid"] = os.getgid()
    found = play(tmp_path, [{"ansible.builtin.file": folder}, *hidden], {"host": ""}, **variables)
    assert found["host"] == f"{tmp_path}/host/secrets/{file} is a folder and should be a file"


@pytest.mark.parametrize(
    ("text", "values", "shown"),
    [
        (f"password {PASSWORD}!", [PASSWORD], f"password {failures.MASK}!"),
        ("a%2Fb-secret in a URL", ["a/b-secret"], f"{failures.MASK} in a URL"),
        ("the word abc stays", ["abc"], "the word abc stays"),
        (
            "password s3cr%2Ft and s3cr/t",
            ["redis://bot:s3cr%2Ft@redis:6379/0"],
            f"password {failures.MASK} and {failures.MASK}",
        ),
        ("no postgresql://bot:guess-it@postgres:5432/x", [], f"no postgresql://bot:{failures.MASK}@postgres:5432/x"),
        ("ALTER ROLE x PASSWORD 'it''s'", [], f"ALTER ROLE x PASSWORD '{failures.MASK}'"),
        ("SCRAM-SHA-256$4096:c2FsdA==$abc:def end", [], f"{failures.MASK} end"),
        ("...hJ4nSalt5dkQlw8Wr1Bb3g==$X1x2Y3y4Z5z6a7b8c9=:", [], f"...{failures.MASK}:"),
        (f"...lt==${KEY}=:X1x2...", [], f"...{failures.MASK}..."),
        ("...3y4Z5z6a7b8c9d0e1=:X1x2...", [], f"...{failures.MASK}..."),
        (f"...c9=:{KEY}=' end", [], f"...{failures.MASK}' end"),
        (f"user bot on #{'ab' * 32} +@all", [], f"user bot on #{failures.MASK} +@all"),
        (f"POST /webhooks/tbw_{'x' * 43}", [], f"POST /webhooks/tbw_{failures.MASK}"),
        ("a\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----\nb", [], f"a\n{failures.MASK}\nb"),
        (
            "sha256:" + "ab" * 32 + " of tradingbot-backend:0.3.0",
            [],
            "sha256:" + "ab" * 32 + " of tradingbot-backend:0.3.0",
        ),
        ("https://bot.example.com/a:b@c and 12:30@noon", [], "https://bot.example.com/a:b@c and 12:30@noon"),
        ("no password Ab1:Cd2-Ef3-Gh4", ["*:*:*:postgres:Ab1\\:Cd2-Ef3-Gh4\n"], f"no password {failures.MASK}"),
    ],
)
def test_secrets_are_masked_and_nothing_else(text: str, values: list[str], shown: str) -> None:
    assert failures.without_secrets(text, values) == shown


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        (
            f"json://a.example.com\ntgram://12345678:{TOKEN}/-1001234",
            f"POST https://api.telegram.org/bot12345678:{TOKEN}/sendMessage: 404",
            f"POST https://api.telegram.org/bot12345678:{failures.MASK}/sendMessage: 404",
        ),
        (
            f"discord://123456789012345678/{TOKEN}?format=markdown",
            f"https://discord.com/api/webhooks/123456789012345678/{TOKEN}: 401",
            f"https://discord.com/api/webhooks/{failures.MASK}/{failures.MASK}: 401",
        ),
        (f"json://a.example.com/?token={TOKEN}", f"token {TOKEN} is wrong", f"token {failures.MASK} is wrong"),
        (f"pover://user@{TOKEN.replace('_', '%5F')}", f"token {TOKEN} is wrong", f"token {failures.MASK} is wrong"),
        (
            f"https://{'ab' * 16}@o1.ingest.sentry.io/4",
            f"key={'ab' * 16} is refused",
            f"key={failures.MASK} is refused",
        ),
        (
            "postgresql://tradingbot_owner:Ab1-Cd2-Ef3@db-of-production:5432/tradingbot_production",
            'Ab1-Cd2-Ef3: no role "tradingbot_owner" in tradingbot_production on db-of-production',
            f'{failures.MASK}: no role "tradingbot_owner" in tradingbot_production on db-of-production',
        ),
    ],
    ids=["telegram", "discord", "query", "percent", "sentry", "database"],
)
def test_parts_of_a_secret_address_are_masked_but_for_the_names_in_a_databases(
    secret: str, text: str, shown: str
) -> None:
    assert failures.without_secrets(text, [secret]) == shown


def test_secrets_within_dicts_and_lists_are_masked() -> None:
    values = [{"a": ["first-secret", {"b": "second-secret"}]}, 1234567890, None, True]
    text = "first-secret second-secret 1234567890 None True"
    assert failures.without_secrets(text, values) == f"{failures.MASK} {failures.MASK} {failures.MASK} None True"


@pytest.mark.parametrize(
    "text",
    [
        "bind /opt/tradingbot/backend/releases:/work/some/thing: no such folder",
        "/var/lib/docker/volumes/data$/opt/tradingbot/backend",
        "pull registry.example.com/tradingbot/backend/service:latestversion",
        "LD_LIBRARY_PATH=:/opt/tradingbot/lib DIR=$HOME/projects/tradingbot/backend",
    ],
)
def test_paths_and_images_are_no_secrets(text: str) -> None:
    assert failures.without_secrets(text) == text


def test_no_text_takes_long_to_mask() -> None:
    began = time.monotonic()
    failures.without_secrets("a" * 30_000)
    assert time.monotonic() - began < 2


def test_what_variables_hold_is_masked_also_the_environments(tmp_path: Path) -> None:
    given = {
        "vault_exchange": {"keys": ["{{ postgres_password }}", "key-of-exchange"]},
        "backend_extra_environment": {
            "PROXY": "http://user:0123@proxy",
            "TZ": "Europe/Vienna",
            "WORKER_CONCURRENCY": 8,
        },
    }
    text = "key-of-exchange http://user:0123@proxy Europe/Vienna"
    explained = {"msg": "{{ lookup('tradingbot.stack.failure', {'msg': text}) }}"}
    said = play(tmp_path, [{"ansible.builtin.fail": explained}], {"host": ""}, text=text, **given)
    assert said["host"] == f"{failures.MASK} {failures.MASK} Europe/Vienna"


def test_what_a_task_says_is_bounded_and_free_of_its_arguments() -> None:
    result = {"msg": "refused", "rc": 1, "stderr": "line\n" * 500, "invocation": {"module_args": {"content": "hidden"}}}
    said = failures.failure_text(result | {"diff": [{"after": "hidden"}], "item": "hidden"})
    assert said.splitlines()[:2] == ["refused", "exit code 1"]
    assert len(said.splitlines()) == 2 + failures.MOST_LINES
    assert "hidden" not in said


def test_the_progress_of_compose_is_left_out() -> None:
    progress = "".join(
        f" Container tradingbot-redis-1  {word}\n" for word in ("Recreate", "Started", "Waiting", "Stopping")
    )
    assert failures.end_of(f"{progress}container tradingbot-redis-1 is unhealthy") == (
        "container tradingbot-redis-1 is unhealthy"
    )
    assert failures.end_of(" Container tradingbot-redis-1  Error") == " Container tradingbot-redis-1  Error"


def test_the_end_has_whole_lines() -> None:
    assert failures.end_of("first line\nsecond line\n", characters=15) == "second line"
    assert failures.end_of("one long line", characters=4) == "line"


def test_of_a_loop_each_failure_is_told_once() -> None:
    results = [{"failed": True, "msg": "no such file"}, {"failed": True, "msg": "no such file"}, {"msg": "fine"}]
    assert failures.failure_text({"msg": "One or more items failed", "results": results}) == "no such file"


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (errno.ENOSPC, "a file system is full"),
        (errno.EDQUOT, "a disk quota is used up"),
        (errno.EROFS, "a file system is read-only"),
    ],
)
def test_a_file_system_that_takes_nothing_is_named_with_the_fix(number: int, meaning: str) -> None:
    with pytest.raises(OSError, match=os.strerror(number)) as refused, failures.naming("/opt/tradingbot/x"):
        raise OSError(number, os.strerror(number), "/opt/tradingbot/.x.temporary")
    why, fix = failures.os_error(refused.value)
    assert why == f"/opt/tradingbot/x: {os.strerror(number)}, {meaning}"
    assert fix
    assert failures.os_error_text(refused.value) == f"{why}. Fix: {fix}"


def test_another_refusal_of_the_system_is_named_too() -> None:
    assert failures.os_error(PermissionError(errno.EACCES, "no", "/x")) == (
        "/x: Permission denied",
        "look at it: `ls -ld /x`",
    )


def test_a_cause_is_told_once() -> None:
    once = failures.described("write: no space left on device")
    assert once.count("That means: a file system is full") == 1
    assert failures.described(once) == once


def test_a_certificate_that_cannot_be_read_is_reported_with_the_reason(tmp_path: Path) -> None:
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.include_role": {"name": "tradingbot.stack.nginx", "tasks_from": "preflight"}},
        {"ansible.builtin.fail": {"msg": "{{ __nginx_problems | map(attribute='why') | join('\n') }}"}},
    ]
    given = {"nginx_tls_mode": "provided", "nginx_server_names": ["bot.example.com"], "nginx_tls_certificate": "no PEM"}
    given |= {"nginx_tls_private_key": "{{ postgres_password }}", "nginx_environment": "development"}
    said = play(tmp_path, tasks, {"host": ""}, **given, nginx_upstreams={"backend-blue": "172.20.255.251:8001"})["host"]
    assert said.startswith("one of them is missing, empty, or not a readable, unencrypted PEM text: ")
    assert "x509_certificate_info" in said
