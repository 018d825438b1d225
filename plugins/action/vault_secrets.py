# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Action behind M(tradingbot.stack.vault_secrets): works on the controller and returns names, never values."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import yaml
from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret, is_encrypted, match_encrypt_secret
from ansible.plugins.action import ActionBase
from ansible_collections.tradingbot.stack.plugins.module_utils import failures
from ansible_collections.tradingbot.stack.plugins.plugin_utils import secrets as rules
from ansible_collections.tradingbot.stack.plugins.plugin_utils import vault as vaults


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Hold the lock of *folder*, so that two runs do not make different values for one secret."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: str, content: bytes) -> None:
    """Replace *path* with *content* in one step, readable by its owner alone."""
    # The leading dot keeps the temporary file out of group_vars.
    handle, temporary = tempfile.mkstemp(prefix=".vault-", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if os.path.exists(path):
                owner = os.stat(path)
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _load(clear: str) -> object:
    """Return what *clear* holds as YAML, or None when it is none; the parser's own words may quote a secret."""
    try:
        return yaml.safe_load(clear)
    except yaml.YAMLError:
        return None


def _parse(clear: str, path: str) -> dict[str, Any]:
    """Return the variables in *clear*; AnsibleError (without a word of it) when it is no YAML mapping."""
    parsed = _load(clear) if clear.strip() else {}
    if not isinstance(parsed, dict):
        raise AnsibleError(
            f"{path} does not hold `name: value` lines; it is left as it is. Mend it with `ansible-vault edit {path}`."
        )
    return parsed


def _added(clear: str, path: str, new: dict[str, str]) -> str:
    """Return *clear* with *new* below it; AnsibleError when lines cannot simply be added at its end."""
    text = clear if clear.endswith("\n") or not clear else clear + "\n"
    text = (text or "---\n") + "".join(f'{name}: "{value}"\n' for name, value in new.items())
    if _load(text) != _parse(clear, path) | new:
        raise AnsibleError(
            f"New lines cannot be added below those in {path}; it is left as it is. Write it as plain "
            f"`name: value` lines, without braces and `...`: `ansible-vault edit {path}`."
        )
    return text


def _read(vault: VaultLib, path: str) -> tuple[str, str | None, VaultSecret]:
    """Return clear text, vault id and password of the vault file *path*, which may not exist yet."""
    if not os.path.lexists(path):
        vault_id, secret = match_encrypt_secret(
            vault.secrets, encrypt_vault_id=constants.config.get_config_value("DEFAULT_VAULT_ENCRYPT_IDENTITY")
        )
        return "", vault_id, secret
    with open(path, "rb") as file:
        content = file.read()
    if not is_encrypted(content):
        raise AnsibleError(
            f"{path} is not encrypted; it is left as it is. Encrypt it first: "
            f"`ansible-vault encrypt --vault-password-file ~/.tradingbot-vault {path}`. "
            "If it was ever committed or copied in the clear, replace the values too."
        )
    return vaults.decrypt(vault, path, content)


class ActionModule(ActionBase):
    """Adds the secrets that an inventory lacks to its vault file."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        _checked, args = self.validate_argument_spec(
            argument_spec={"path": {"type": "path"}, "secrets": {"type": "dict", "default": rules.SECRETS}}
        )
        result: dict[str, Any] = super().run(tmp, task_vars)
        unknown = set(args["secrets"].values()) - {rules.PASSWORD, rules.KEY}
        if unknown:
            raise AnsibleActionFail(f"secrets: the kinds are password and key, not {', '.join(map(str, unknown))}")
        path = self._path(args["path"], (task_vars or {}).get("ansible_inventory_sources") or [])
        try:
            result.update(self._ensure(path, args["secrets"]))
        except OSError as error:
            error.filename = error.filename or path
            raise AnsibleActionFail(failures.os_error_text(error)) from None
        result["_ansible_verbose_always"] = True
        return result

    def _path(self, given: str | None, sources: list[str]) -> str:
        if given:
            return os.path.realpath(given)
        folders = vaults.inventory_dirs(sources)
        if len(folders) != 1:
            raise AnsibleActionFail(
                f"This run has {len(folders)} inventory folders, so it is not clear whose secrets to make. "
                "Name one with `-i inventories/prod`, or the file with `-e secrets_path=<path>/vault.yml`."
            )
        for extension in constants.YAML_FILENAME_EXTENSIONS:
            single = f"{folders[0]}/group_vars/all{extension}"
            if os.path.isfile(single):
                raise AnsibleActionFail(
                    f"A folder group_vars/all would hide {single} from Ansible. Move it into the folder first: "
                    f"`mkdir {folders[0]}/group_vars/all && mv {single} {folders[0]}/group_vars/all/main.yml`."
                )
        return os.path.realpath(f"{folders[0]}/group_vars/all/vault.yml")

    def _ensure(self, path: str, kinds: dict[str, str]) -> dict[str, Any]:
        vault = vaults.vault_of(self._loader)
        folder = os.path.dirname(path)
        check = bool(self._task.check_mode)
        if not os.path.isdir(folder):
            if check:
                return self._told(path, list(kinds), [], [], check)
            os.makedirs(folder)
        with _locked(folder):
            clear, vault_id, secret = _read(vault, path)
            present = _parse(clear, path)
            new = {name: rules.make(kind) for name, kind in kinds.items() if name not in present}
            if new:
                text = _added(clear, path, new)
                if not check:
                    _write(path, vault.encrypt(text, secret, vault_id=vault_id))
            kept = [name for name in kinds if name in present]
            return self._told(path, list(new), kept, [n for n in kept if rules.is_empty(present[n])], check)

    @staticmethod
    def _told(path: str, created: list[str], kept: list[str], empty: list[str], check: bool) -> dict[str, Any]:
        verb = "Would make" if check else "Made"
        lines = [f"{verb} {len(created)} secrets and kept {len(kept)} in {path}."]
        if created and not check:
            lines.append("Keep the vault password safe: without it nobody can read them again.")
        if empty:
            lines.append(
                f"Kept although empty: {', '.join(empty)}. Delete their lines with `ansible-vault edit {path}` "
                "and run this again to have them made."
            )
        return {"changed": bool(created), "path": path, "created": created, "kept": kept, "msg": lines}
