# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Secrets are strong, survive a second run, and show in no output."""

from __future__ import annotations

import base64
import os
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.tradingbot.stack.plugins.filter.backend_secret_problems import backend_secret_problems
from ansible_collections.tradingbot.stack.plugins.filter.scram_verifier import scram_verifier
from ansible_collections.tradingbot.stack.plugins.plugin_utils import secrets as rules
from forked import COMMON, ansible
from rendering import render
from small_host import evaluate

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
NAMES = list(rules.SECRETS)
KINDS = rules.SECRETS | rules.OPTIONAL
CASES = [
    (name, value, why)
    for name, cases in runpy.run_path(str(ROOT / "backend/tests/secret_cases.py"))["CASES"].items()
    for value, why in cases
]


def backend_findings(name: str, value: object) -> list[tuple[str, str]]:
    return [(finding["what"], finding["why"]) for finding in backend_secret_problems({name: value})]


@dataclass
class Inventory:
    """An inventory of one local host, and a vault password."""

    folder: Path
    password: Path

    @property
    def vault(self) -> Path:
        return self.folder / "group_vars" / "all" / "vault.yml"

    def play(
        self, *options: str, password: Path | None = None, playbook: Path | str = ROOT / "playbooks/secrets.yml"
    ) -> subprocess.CompletedProcess[str]:
        """Run *playbook*, by default with the vault password."""
        given = ["--vault-password-file", str(password or self.password)] if password != Path() else []
        return ansible("ansible-playbook", str(playbook), "-i", str(self.folder), *given, *options)

    def clear(self) -> str:
        """Return the clear text of the vault."""
        shown = ansible("ansible-vault", "view", "--vault-password-file", str(self.password), str(self.vault))
        assert shown.returncode == 0, shown.stderr
        return shown.stdout

    def values(self) -> dict[str, str]:
        content: dict[str, str] = yaml.safe_load(self.clear())
        return content

    def encrypt(self, text: str) -> None:
        """Make *text* the content of the vault."""
        self.vault.parent.mkdir(parents=True, exist_ok=True)
        self.vault.write_text(text)
        done = ansible("ansible-vault", "encrypt", "--vault-password-file", str(self.password), str(self.vault))
        assert done.returncode == 0, done.stderr


def text(done: subprocess.CompletedProcess[str]) -> str:
    """Return all that a run has said, on one line each."""
    return " ".join((done.stdout + done.stderr).split())


def leaks(output: str, values: dict[str, str]) -> list[str]:
    """Return the names whose value stands in *output*, in the clear, as base64 or as hexadecimal."""
    joined = "".join(output.split())
    return [
        name
        for name, value in values.items()
        if value in joined
        or base64.b64encode(value.encode()).decode().rstrip("=") in joined
        or value.encode().hex() in joined
    ]


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    folder = tmp_path / "inventory"
    folder.mkdir()
    (folder / "hosts.yml").write_text("all: {hosts: {one: {ansible_connection: local}}}\n")
    password = tmp_path / "password"
    password.write_text("correct horse battery staple\n")
    return Inventory(folder, password)


class TestRules:
    def test_made_values_are_strong_and_different(self) -> None:
        made = [rules.make(kind) for kind in (rules.PASSWORD, rules.KEY) for _ in range(500)]
        assert len(set(made)) == len(made)
        assert [rules.reason(value, rules.PASSWORD) for value in made] == [None] * len(made)
        assert all(value.isalnum() and len(value) == 43 for value in made[:500])
        assert {len(base64.urlsafe_b64decode(value)) for value in made[500:]} == {32}
        assert {rules.reason(value, rules.KEY) for value in made[500:]} == {None}

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            (None, "empty"),
            ("", "empty"),
            ("  \n", "empty"),
            (12345678901234567890123456789012345678901234, "not a string"),
            ("changeme", "placeholder"),
            ("CHANGE_ME", "placeholder"),
            ("changethis", "placeholder"),
            ("change-me-please-0123456789abcdefgh", "placeholder"),
            ("password", "placeholder"),
            ("MySecretPassphraseThatIsQuiteLongIndeed", "placeholder"),
            ("an-example-that-is-long-enough-0123456789", "placeholder"),
            ("<paste the key here, 32 characters>", "placeholder"),
            ("your-secret", "placeholder"),
            ("your_key_0123456789abcdefghijklmnopqrst", "placeholder"),
            ("xxx", "placeholder"),
            ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "placeholder"),
            ("tQ3vN8zLr5WcY1pK", "shorter than 32"),
            ("abababababababababababababababababababab", "fewer than 10 different"),
            ("q7Zp2Lw9Xk4q7Zp2Lw9Xk4q7Zp2Lw9Xk4q7Zp2Lw9Xk4", "one piece repeated"),
            ("abcdefghijklmnopqrstuvwxyz0123456789", "run of neighbouring"),
        ],
    )
    def test_unfit(self, value: object, why: str) -> None:
        assert why in str(rules.reason(value, rules.PASSWORD))

    @pytest.mark.parametrize(
        "value",
        [
            rules.make(rules.PASSWORD),
            base64.urlsafe_b64encode(b"q7Zp2Lw9Xk4rT8vB").decode(),
            base64.urlsafe_b64encode(os.urandom(33)).decode(),
            rules.make(rules.KEY).rstrip("=") + "!",
            rules.make(rules.KEY)[:-1],
        ],
        ids=["alphanumeric", "16 bytes", "33 bytes", "another alphabet", "cut off"],
    )
    def test_a_key_of_another_form_is_unfit(self, value: str) -> None:
        assert rules.reason(value, rules.KEY)

    @pytest.mark.parametrize(("name", "value", "why"), CASES)
    def test_the_preflight_says_the_same_as_the_backend(self, name: str, value: str, why: str | None) -> None:
        """The backend's tests hold its settings to the same cases."""
        assert rules.reason(value, KINDS[f"vault_backend_{name}"]) == why
        assert backend_findings(name, value) == ([] if why is None else [(f"backend_{name}", why)])

    @pytest.mark.parametrize("value", [12345678, 1.5, True, ["a"], {"a": "b"}])
    def test_what_yaml_makes_of_a_value_without_quotes_is_refused(self, value: object) -> None:
        for kind in {*KINDS.values(), None}:
            assert rules.reason(value, kind) == "is not a string; put it in quotes"

    def test_an_empty_optional_secret_is_not_given(self) -> None:
        for empty in ("", " ", "\n", None):
            assert rules.findings(dict.fromkeys([*rules.OPTIONAL, "vault_of_ours"], empty), {}) == []
            assert all(
                backend_findings(name, empty) == [] for name in ("encryption_key_old", "notify_urls", "sentry_dsn")
            )
            assert backend_findings("secret_key", empty) == [("backend_secret_key", "is not set")]

    @pytest.mark.parametrize("value", [value for name, value, why in CASES if name == "secret_key" and why is None])
    def test_a_fit_password_arrives_as_it_is(self, value: str) -> None:
        """At PostgreSQL, Redis and the backend: in each form that a role writes it in."""
        wiring = yaml.safe_load((ROOT / "inventories/prod/group_vars/all/00-wiring.yml").read_text())
        known = {name: wiring[name] for name in ("postgres_user", "postgres_database", "redis_user")}
        known |= {f"vault_{name}_password": value for name in ("postgres", "postgres_owner", "redis")}
        known["postgres_owner_user"] = "keeper"
        for name in ("backend_database_url", "backend_schema_database_url", "backend_redis_url"):
            url = str(Templar(loader=DataLoader(), variables=known).template(trust_as_template(wiring[name])))
            assert unquote(str(urlsplit(url).password)) == value
            assert urlsplit(url).port in (5432, 6379)
        pgpass = evaluate("postgres", "__postgres_secrets.postgres_pgpass", postgres_superuser_password=value)
        pgpass = str(pgpass).rstrip("\n")
        assert re.sub(r"\\(.)", r"\1", pgpass.removeprefix("*:*:*:postgres:")) == value
        assert scram_verifier(value, "salt").startswith("SCRAM-SHA-256$")
        acl = render("redis", "secrets/redis_acl.j2", redis_password=value, redis_health_password=value)
        assert acl.count(f"on #{sha256(value.encode()).hexdigest()} ") == 2

    def test_a_registry_password_may_be_a_file_of_json(self) -> None:
        assert rules.reason('{\n  "private_key": "secret"\n}', rules.TOKEN) is None
        assert rules.reason("glpat-q7Zp2\n", rules.TOKEN) == "begins or ends with a blank or a line end"

    def test_a_word_in_the_base64_of_a_key_is_chance(self) -> None:
        value = "tQ3vN8zLr5WcY1pKchangemeQ7Zp2Lw9Xk4rT8vB0hs="
        assert rules.reason(value, rules.KEY) is None
        assert rules.reason(value, rules.PASSWORD) == "is a placeholder"

    def test_hexadecimal_of_openssl_is_fit(self) -> None:
        assert rules.reason(os.urandom(32).hex(), rules.PASSWORD) is None

    def test_a_secret_that_others_issue_is_not_judged_by_its_length(self) -> None:
        assert rules.findings({"vault_chat_id": "48151623"}, {}) == []
        assert rules.findings({"vault_chat_id": "changeme"}, {})[0]["why"] == "is a placeholder"

    def test_findings_name_what_why_and_fix_and_no_value(self) -> None:
        good = {name: rules.make(kind) for name, kind in rules.SECRETS.items()}
        assert rules.findings(good) == []
        bad = {**good, "vault_redis_password": good["vault_postgres_password"], "vault_backend_secret_key": "tooShort7"}
        del bad["vault_backend_webhook_secret"]
        found = rules.findings(bad, inventory="inventories/mine")
        assert [(f["what"], f["why"].split(":")[0]) for f in found] == [
            ("vault_backend_webhook_secret", "not set"),
            ("vault_backend_secret_key", "is shorter than 32 characters"),
            ("vault_postgres_password, vault_redis_password", "have the same value"),
        ]
        assert all("inventories/mine" in f["fix"] for f in found)
        assert leaks(str(found), bad) == []


class TestPlaybook:
    def test_makes_keeps_and_shows_names_only(self, inventory: Inventory) -> None:
        checked = inventory.play("--check", "--diff", "-vvv")
        assert checked.returncode == 0, text(checked)
        assert "Would make 9 secrets" in text(checked)
        assert not inventory.vault.exists()

        first = inventory.play("-vvv", "--diff")
        assert first.returncode == 0, text(first)
        values = inventory.values()
        assert list(values) == NAMES
        assert rules.findings(values) == []
        assert all(name in first.stdout for name in NAMES)
        assert "changed=1" in first.stdout
        assert inventory.vault.read_text().startswith("$ANSIBLE_VAULT;")
        assert inventory.vault.stat().st_mode & 0o777 == 0o600
        assert os.listdir(inventory.vault.parent) == ["vault.yml"]

        before = inventory.vault.read_bytes()
        second = inventory.play("-vvv", "--diff")
        assert "changed=0" in second.stdout, text(second)
        assert "Made 0 secrets and kept 9" in text(second)
        assert inventory.vault.read_bytes() == before
        for done in (checked, first, second):
            assert leaks(done.stdout + done.stderr, values) == []

    def test_adds_only_what_is_missing_and_keeps_text_and_order(self, inventory: Inventory) -> None:
        old = "---\n# Ours.\nvault_redis_password: 'weak: but ours'\nvault_other: 5\nvault_postgres_password:\n"
        inventory.encrypt(old)
        done = inventory.play("-vvv", "--diff")
        assert done.returncode == 0, text(done)
        assert inventory.clear().startswith(old)
        assert list(inventory.values())[3:] == [name for name in NAMES if name not in old]
        assert "Made 7 secrets and kept 2" in text(done)
        assert "Kept although empty: vault_postgres_password" in text(done)
        assert "but ours" not in done.stdout + done.stderr

    def test_two_runs_at_once_agree(self, inventory: Inventory) -> None:
        command = [str(BIN / "ansible-playbook"), "playbooks/secrets.yml", "-i", str(inventory.folder)]
        command += ["--vault-password-file", str(inventory.password)]
        runs = [
            subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | COMMON, cwd=ROOT, text=True)
            for _ in range(3)
        ]
        said = [one.communicate(timeout=120)[0] for one in runs]
        assert [one.returncode for one in runs] == [0, 0, 0]
        assert sum("changed=1" in one for one in said) == 1
        assert len(inventory.clear().splitlines()) == 1 + len(NAMES)

    def test_keeps_the_vault_id_of_the_file(self, inventory: Inventory, tmp_path: Path) -> None:
        done = inventory.play("--vault-id", f"prod@{inventory.password}", password=Path())
        assert done.returncode == 0, text(done)
        assert inventory.vault.read_text().startswith("$ANSIBLE_VAULT;1.2;AES256;prod\n")

    def test_writes_another_file_when_asked(self, inventory: Inventory, tmp_path: Path) -> None:
        done = inventory.play("-e", f"secrets_path={tmp_path}/elsewhere/secrets.yml")
        assert done.returncode == 0, text(done)
        assert (tmp_path / "elsewhere" / "secrets.yml").is_file()
        assert not inventory.vault.exists()

    def test_fits_every_command_it_tells_people(self, inventory: Inventory) -> None:
        """The password file that the refusal tells people to make is one that works."""
        made = subprocess.run(["openssl", "rand", "-base64", "32"], capture_output=True, check=True, timeout=10)
        inventory.password.write_bytes(made.stdout)
        assert inventory.play().returncode == 0
        assert inventory.play(playbook="tradingbot.stack.secrets").returncode == 0


class TestRefusals:
    def refused(self, done: subprocess.CompletedProcess[str], *words: str) -> None:
        assert done.returncode != 0
        assert [word for word in words if word not in text(done)] == []

    def test_no_vault_password(self, inventory: Inventory) -> None:
        done = inventory.play(password=Path())
        self.refused(done, "No vault password was given", "openssl rand -base64 32", "--vault-password-file")
        assert not inventory.vault.exists()

    def test_no_vault_password_for_an_encrypted_file(self, inventory: Inventory) -> None:
        inventory.encrypt("vault_a: b\n")
        self.refused(
            inventory.play(password=Path()),
            str(inventory.vault),
            "no vault password was given",
            "--vault-password-file",
        )

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_another_vault_password(self, inventory: Inventory, tmp_path: Path, elsewhere: bool) -> None:
        inventory.encrypt("vault_a: b\n")
        path = inventory.vault
        if elsewhere:
            path = inventory.vault.rename(tmp_path / "secrets.yml")
        before = path.read_bytes()
        other = tmp_path / "other"
        other.write_text("another one\n")
        done = inventory.play("-e", f"secrets_path={path}", password=other)
        self.refused(done, str(path), "does not open with the vault password of this run", "left as it is", "rekey")
        assert path.read_bytes() == before

    def test_a_file_in_the_clear(self, inventory: Inventory) -> None:
        inventory.vault.parent.mkdir(parents=True)
        inventory.vault.write_text("vault_redis_password: plainlyVisible77\n")
        done = inventory.play("-vvv", "--diff")
        self.refused(
            done,
            "is not encrypted",
            f"ansible-vault encrypt --vault-password-file ~/.tradingbot-vault {inventory.vault}",
        )
        assert inventory.vault.read_text() == "vault_redis_password: plainlyVisible77\n"
        assert "plainlyVisible77" not in done.stdout + done.stderr

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("{vault_a: hiddenValue42}\n", "New lines cannot be added"),
            ("---\nvault_a: hiddenValue42\n...\n", "New lines cannot be added"),
            ("- hiddenValue42\n", "does not hold `name: value` lines"),
            ("vault_a: 'hiddenValue42\n", "does not hold `name: value` lines"),
        ],
    )
    def test_content_that_cannot_take_lines(self, inventory: Inventory, tmp_path: Path, content: str, why: str) -> None:
        inventory.encrypt(content)
        path = inventory.vault.rename(tmp_path / "secrets.yml")
        before = path.read_bytes()
        done = inventory.play("-vvv", "-e", f"secrets_path={path}")
        self.refused(done, why, "ansible-vault edit")
        assert path.read_bytes() == before
        assert "hiddenValue42" not in done.stdout + done.stderr

    def test_a_file_that_a_folder_would_hide(self, inventory: Inventory) -> None:
        (inventory.folder / "group_vars").mkdir()
        (inventory.folder / "group_vars" / "all.yml").write_text("a: 1\n")
        self.refused(inventory.play(), "would hide", "mv ")
        assert not inventory.vault.parent.exists()

    def test_several_inventories(self, inventory: Inventory, tmp_path: Path) -> None:
        (tmp_path / "second").mkdir()
        (tmp_path / "second" / "hosts.yml").write_text("all: {hosts: {two: {}}}\n")
        self.refused(inventory.play("-i", str(tmp_path / "second")), "2 inventory folders", "secrets_path=")
        self.refused(ansible("ansible-playbook", "playbooks/secrets.yml", "-i", "localhost,"), "0 inventory folders")

    def test_listing_needs_no_password(self, inventory: Inventory) -> None:
        inventory.encrypt("vault_a: b\n")
        for option in ("--syntax-check", "--list-tasks", "--list-tags"):
            assert inventory.play(option, password=Path()).returncode == 0


class TestPreflight:
    PLAY = """
- name: Judge the secrets
  hosts: "{{ lookup('tradingbot.stack.with_vault', 'all') }}"
  gather_facts: false
  tasks:
    - name: Refuse weak secrets
      ansible.builtin.fail:
        msg: "{{ query('tradingbot.stack.secret_problems') | tradingbot.stack.problems }}"
      when: query('tradingbot.stack.secret_problems') | length > 0
"""

    def test_judges_undefined_computed_and_inline_encrypted_variables(
        self, inventory: Inventory, tmp_path: Path
    ) -> None:
        playbook = tmp_path / "play.yml"
        playbook.write_text(self.PLAY)
        assert inventory.play().returncode == 0
        passed = inventory.play("-vvv", playbook=playbook)
        assert passed.returncode == 0, text(passed)

        encrypted = ansible(
            "ansible-vault", "encrypt_string", "--vault-password-file", str(inventory.password), "tooShort7"
        )
        more = f"vault_inline: {encrypted.stdout}\n"
        more += "vault_undefined: '{{ nowhere }}'\nvault_chain: '{{ vault_undefined }}'\n"
        more += 'vault_redis_password: \'{{ lookup("pipe", "echo tooShort7") }}\'\n'
        # Read after vault.yml, so these win.
        (inventory.vault.parent / "zz.yml").write_text(more)
        done = inventory.play("-vvv", playbook=playbook)
        said = text(done)
        assert done.returncode != 0
        for name in ("vault_undefined", "vault_chain"):
            assert f"{name}: cannot be computed" in said
        assert "vault_redis_password: is shorter than 32 characters" in said
        assert "vault_inline, vault_redis_password: have the same value" in said
        assert leaks(done.stdout + done.stderr, {**inventory.values(), "inline": "tooShort7"}) == []
