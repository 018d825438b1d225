# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The production example refuses until it is filled in, and is complete once it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tradingbot.stack.plugins.plugin_utils import inventory as rules
from ansible_collections.tradingbot.stack.plugins.plugin_utils.secrets import OPTIONAL, SECRETS
from forked import ansible

ROOT = Path(__file__).resolve().parents[2]
PROD = ROOT / "inventories" / "prod"
BIN = Path(sys.executable).parent
WIRING = Path("group_vars") / "all" / "00-wiring.yml"
ROLES = ("docker_host", "postgres", "redis", "backend", "nginx")


REFUSE = """
- name: Refuse an inventory that is not filled in
  hosts: all
  gather_facts: false
  tasks:
    - name: Refuse to go on with a problem
      ansible.builtin.fail:
        msg: "{{ problems | tradingbot.stack.problems }}"
      vars:
        problems: "{{ query('tradingbot.stack.inventory_problems') + query('tradingbot.stack.secret_problems') }}"
      when: problems | length > 0
"""


def said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def prod(tmp_path: Path) -> Path:
    """A copy of the example as it is in the repository, without anything that a person has put there."""
    return copy(tmp_path)


def copy(folder: Path) -> Path:
    """Return a copy of the example in *folder*."""
    shutil.copytree(PROD, folder / "prod", ignore=shutil.ignore_patterns("vault.yml", "*.pem"))
    return folder / "prod"


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with the example filled in, to copy from; and the names of what the refusal told to fill."""
    folder = tmp_path_factory.mktemp("filled")
    return folder, fill(copy(folder))


@pytest.fixture
def filled(filling: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """The example, filled in as its refusal tells."""
    shutil.copytree(filling[0], tmp_path, dirs_exist_ok=True)
    return tmp_path / "prod"


def fill(prod: Path) -> list[str]:
    """Run each command that the refusal gives; return the names of the variables."""
    play = prod.parent / "refuse.yml"
    play.write_text(REFUSE)
    done = ansible("ansible-playbook", str(play), "-i", str(prod))
    assert done.returncode != 0
    ways = dict(re.findall(r"^ *\d+\. ([\w, ]+): .*\n *Way out: (.*)$", done.stdout, re.MULTILINE))
    for pem in ("fullchain.pem", "privkey.pem"):
        (prod.parent / pem).write_text(f"{pem}\n")
    (prod.parent / "password").write_text("correct horse battery staple\n")
    for name, way in ways.items():
        command = way.split("   (")[0].replace("~/.tradingbot-vault", str(prod.parent / "password"))
        environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
        }
        step = subprocess.run(
            ["bash", "-ec", command], cwd=prod.parent, env=environment, capture_output=True, text=True, check=False
        )
        assert step.returncode == 0, (name, step.stdout, step.stderr)
    return list(ways)


def variables(prod: Path, host: str = "server") -> dict[str, Any]:
    """Return all variables of *host*, computed."""
    play = prod.parent / "variables.yml"
    wanted = sorted(yaml.safe_load((prod / WIRING).read_text()))
    task = {
        "name": "Write what the variables come to",
        "ansible.builtin.copy": {
            "dest": "{{ inventory_dir }}/../{{ inventory_hostname }}.json",
            "mode": "0600",
            "content": "{{ shown | to_json }}",
        },
        "delegate_to": "localhost",
        "vars": {"shown": {name: "{{ " + name + " }}" for name in wanted}},
    }
    play.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
    done = ansible(
        "ansible-playbook", str(play), "-i", str(prod), "--vault-password-file", str(prod.parent / "password")
    )
    assert done.returncode == 0, said(done)
    shown: dict[str, Any] = json.loads((prod.parent / f"{host}.json").read_text())
    return shown


def test_refuses_all_that_is_left_together_before_any_connection(prod: Path) -> None:
    done = ansible("ansible-playbook", "playbooks/site.yml", "-i", str(prod))
    assert done.returncode != 0
    for name in (*rules.FILL, *rules.FILES, *SECRETS):
        assert name in said(done), name
    assert "nothing has been changed" in said(done)
    assert "UNREACHABLE" not in done.stdout
    assert "Gather the facts" not in done.stdout


DIGEST = "@sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("groups", "images", "names"),
    [
        (["redis"], {}, ["redis_image"]),
        (["redis"], {"redis_image": "redis:7-alpine"}, ["redis_image"]),
        (["redis"], {"redis_image": f"redis:7-alpine{DIGEST}"}, []),
        (["redis"], {"redis_image": f"redis:7-alpine{DIGEST}0"}, ["redis_image"]),
        (["backend"], {"backend_image": ""}, ["backend_build_python_image"]),
        (["backend"], {"backend_build_python_image": f"python:3.13-slim{DIGEST}"}, []),
        (["backend"], {"backend_build_python_image": f"python{DIGEST}", "backend_image": "bot:1"}, ["backend_image"]),
        (["all", "docker_host"], {}, []),
        (["postgres", "redis", "backend", "nginx"], {}, [names[-1] for names in rules.IMAGES.values()]),
    ],
)
def test_images_without_a_digest_are_found(groups: list[str], images: dict[str, str], names: list[str]) -> None:
    assert [finding["what"] for finding in rules.digest_findings(groups, images)] == names


@pytest.mark.parametrize("required", ["true", "false"])
def test_digests_are_asked_for_where_the_inventory_says_so(prod: Path, required: str) -> None:
    with (prod / WIRING.with_name("main.yml")).open("a") as file:
        file.write(f"image_digests_required: {required}\nnginx_image: nginx:1.30-alpine{DIGEST}\n")
    done = said(ansible("ansible-playbook", "playbooks/site.yml", "-i", str(prod)))
    assert ("redis_image: the default has no digest" in done) == (required == "true")
    assert "nginx_image" not in done


def test_the_commands_in_the_refusals_fill_it(filled: Path, filling: tuple[Path, list[str]]) -> None:
    assert set(rules.FILL) | set(rules.FILES) <= set(filling[1])
    left = [path for path in filled.rglob("*.yml") if re.search(r"^[^#\n]*CHANGE_ME", path.read_text(), re.MULTILINE)]
    assert left == []
    values = variables(filled)
    assert values["docker_host_services"] == ["postgres", "redis", "backend", "nginx"]
    assert values["docker_host_required_ports"] == [80, 443]
    assert values["postgres_max_connections"] == 152
    assert values["backend_slots"] == {"blue": "172.20.255.251", "green": "172.20.255.252"}
    assert (
        values["backend_database_url"]
        == f"postgresql://tradingbot:{values['postgres_password']}@postgres:5432/tradingbot"
    )
    assert (
        values["backend_schema_database_url"]
        == f"postgresql://tradingbot_owner:{values['postgres_owner_password']}@postgres:5432/tradingbot"
    )


@pytest.mark.parametrize(("workers", "connections"), [(1, 100), (4, 152), (8, 256)])
def test_postgresql_takes_all_connections_of_the_backend(filled: Path, workers: int, connections: int) -> None:
    with (filled / WIRING.with_name("main.yml")).open("a") as file:
        file.write(f"backend_workers: {workers}\n")
    assert variables(filled)["postgres_max_connections"] == connections


def test_the_connections_of_trusted_proxies_are_not_counted(filled: Path) -> None:
    assert variables(filled)["docker_host_firewall_web_connections_exempt"] == []
    with (filled / WIRING.with_name("main.yml")).open("a") as file:
        file.write("nginx_trusted_proxies: [192.0.2.0/24]\n")
    assert variables(filled)["docker_host_firewall_web_connections_exempt"] == ["192.0.2.0/24"]


def test_groups_decide_what_a_host_carries(filled: Path) -> None:
    hosts = yaml.safe_load((filled / "hosts.yml").read_text())
    hosts["all"]["children"]["docker_host"]["hosts"]["database"] = {"ansible_host": "203.0.113.11"}
    hosts["all"]["children"]["postgres"]["hosts"] = {"database": None}
    (filled / "hosts.yml").write_text(yaml.safe_dump(hosts))
    database, server = variables(filled, "database"), variables(filled, "server")
    assert database["docker_host_services"] == ["postgres"]
    assert database["docker_host_required_ports"] == []
    assert database["docker_host_firewall_web_ports"] == []
    assert server["docker_host_services"] == ["redis", "backend", "nginx"]


def test_every_inventory_wires_the_roles_alike() -> None:
    assert (ROOT / "inventories" / "demo" / WIRING).read_text() == (PROD / WIRING).read_text()


def test_wires_only_variables_that_the_roles_have() -> None:
    known: set[str] = set()
    for role in ROLES:
        known |= set(yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text()))
    own = {"tls_certificate_file", "tls_private_key_file"}
    for file in (WIRING, WIRING.with_name("main.yml")):
        assert set(yaml.safe_load((PROD / file).read_text())) - known - own == set()


def test_every_secret_is_wired_and_listed() -> None:
    text = (PROD / WIRING).read_text()
    assert set(re.findall(r"\bvault_\w+", text)) == set(SECRETS) | set(OPTIONAL)
    assert list(yaml.safe_load((PROD / WIRING.with_name("vault.yml.example")).read_text())) == list(SECRETS)


def test_a_name_that_was_not_filled_is_found_anywhere() -> None:
    assert rules.holds_placeholder({"a": [{"b": "x CHANGE_ME"}]})
    assert not rules.holds_placeholder({"a": [{"b": 1}, None, "fine"]})
    found = rules.placeholder_findings({"other": ["CHANGE_ME"], "fine": 1}, "inventories/mine")
    assert [finding["what"] for finding in found] == ["other"]
    assert "inventories/mine" in found[0]["fix"]


PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_mistyped_path_of_an_inventory_is_no_success(tmp_path: Path, playbook: str) -> None:
    done = ansible(
        "ansible-playbook", f"playbooks/{playbook}.yml", "-i", str(tmp_path / "typo"), "-e", "backend_version=1"
    )
    assert done.returncode != 0
    assert f"there is no {tmp_path / 'typo'}. Pass yours" in said(done)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["all: {}", "all: {hosts: {other: {}}}", "all: [broken"])
def test_an_inventory_without_the_hosts_is_no_success(tmp_path: Path, content: str) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(content)
    done = ansible("ansible-playbook", "playbooks/health.yml", "-i", str(inventory))
    assert done.returncode != 0
    assert f"hosts in the group docker_host, and {inventory} has none" in said(done)
