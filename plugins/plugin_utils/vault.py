# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Reading an inventory's vault files with refusals that say what to do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret

MAKE_PASSWORD = (
    "Make a vault password once with `(umask 077; openssl rand -base64 32 > ~/.tradingbot-vault)`, keep a copy "
    "in your password manager, and pass `--vault-password-file ~/.tradingbot-vault` (or `--ask-vault-pass`)."
)


def inventory_dirs(sources: Iterable[str]) -> list[str]:
    """Return the folders of the inventory *sources*, each once; host lists such as ``host1,`` have none."""
    folders: list[str] = []
    for source in sources:
        if "," in source:
            continue
        folder = source if os.path.isdir(source) else os.path.dirname(source)
        if folder not in folders:
            folders.append(folder)
    return folders


def shown_inventory(sources: Iterable[str]) -> str:
    """Return the folder of the inventory as a person would type it here; the example's if there is not just one."""
    folders = inventory_dirs(sources)
    if len(folders) != 1:
        return "inventories/prod"
    relative = os.path.relpath(folders[0])
    return folders[0] if relative.startswith("..") else relative


def vault_of(loader: Any) -> VaultLib:
    """Return Ansible's vault with the passwords of this run; AnsibleError when there are none."""
    vault: VaultLib = loader._vault
    if not vault.secrets:
        raise AnsibleError(f"No vault password was given. {MAKE_PASSWORD}")
    return vault


def decrypt(vault: VaultLib, path: str, content: bytes) -> tuple[str, str, VaultSecret]:
    """Return the clear text of *content*, and the id and password that opened it; AnsibleError when none does."""
    try:
        clear, vault_id, secret = vault.decrypt_and_get_vault_id(content)
        return bytes(clear).decode(), vault_id, secret
    except (AnsibleError, ValueError):
        # `from None`: the cause may quote from the file.
        raise AnsibleError(
            f"{path} does not open with the vault password of this run; it is left as it is. "
            "Pass the password that it was encrypted with (`--vault-password-file <file>`). To change the "
            f"password: `ansible-vault rekey --vault-password-file <old> --new-vault-password-file <new> {path}`."
        ) from None
