# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of the same name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vault_secrets
short_description: Make the secrets that an inventory lacks, vault-encrypted
version_added: 0.1.0
author:
  - The tradingbot.stack maintainers (@tradingbot)
description:
  - Makes a strong value for each secret that the vault file of an inventory lacks, and writes the file encrypted
    with the vault password of the run.
  - A secret that is already in the file is kept, whatever its value; so are the file's comments and order.
  - Returns names, never values.
options:
  path:
    description:
      - The vault file.
      - Defaults to C(group_vars/all/vault.yml) in the folder of the inventory of this run.
    type: path
  secrets:
    description:
      - Names of the secrets and their kinds, V(password) (43 alphanumeric characters) or V(key) (urlsafe base64 of
        32 bytes). Both hold 256 bit.
      - Defaults to all secrets that the roles of this collection need.
    type: dict
attributes:
  check_mode:
    description: Says what would be made; writes nothing.
    support: full
  diff_mode:
    description: A difference would show secrets.
    support: none
  action:
    description: Runs on the controller; the host of the task does not matter.
    support: full
"""

EXAMPLES = r"""
- name: Ensure every secret of the inventory has a value
  tradingbot.stack.vault_secrets:
"""

RETURN = r"""
created:
  description: Names of the secrets that were made, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [vault_redis_password]
kept:
  description: Names of the secrets that were there.
  returned: success
  type: list
  elements: str
  sample: [vault_postgres_password]
path:
  description: The vault file.
  returned: success
  type: str
  sample: inventories/prod/group_vars/all/vault.yml
"""
