# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter that computes what PostgreSQL stores for a password."""

from __future__ import annotations

DOCUMENTATION = r"""
name: scram_verifier
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.1.0
short_description: SCRAM-SHA-256 verifier of a password, as PostgreSQL stores it
description:
  - Lets a role's password be set and compared without its clear value ever reaching the database server.
  - The same password and salt text always give the same verifier, so a changed password shows as a changed verifier.
options:
  _input:
    description: The password, printable ASCII.
    type: str
    required: true
  salt_text:
    description: Text that is unique for the database role, for example host and role name. It need not be secret.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the verifier of a throwaway password
  ansible.builtin.debug:
    msg: "{{ 'pencil' | tradingbot.stack.scram_verifier(salt_text='db1/tradingbot') }}"
"""

RETURN = r"""
_value:
  description: Text for C(ALTER ROLE … PASSWORD).
  type: str
"""

from base64 import b64encode
from hashlib import pbkdf2_hmac, sha256
from hmac import digest

from ansible.errors import AnsibleFilterError

ITERATIONS = 4096  # PostgreSQL's own; RFC 7677 asks for at least that


def scram_keys(password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """Return StoredKey and ServerKey of RFC 5802, section 3, with SHA-256 (RFC 7677)."""
    salted = pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    return sha256(digest(salted, b"Client Key", "sha256")).digest(), digest(salted, b"Server Key", "sha256")


def scram_verifier(password: str, salt_text: str) -> str:
    """Return the verifier of *password* in PostgreSQL's form.

    Raises AnsibleFilterError, without the value, unless *password* is printable ASCII: other
    characters would need the normalisation of RFC 4013 (SASLprep) first.
    """
    if not isinstance(password, str) or not (password and password.isascii() and password.isprintable()):
        raise AnsibleFilterError("a database password must be non-empty, printable ASCII")
    salt = sha256(salt_text.encode()).digest()[:16]
    stored, server = scram_keys(password, salt, ITERATIONS)
    salt_b64, stored_b64, server_b64 = (b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${ITERATIONS}:{salt_b64}${stored_b64}:{server_b64}"


class FilterModule:
    """Filters of tradingbot.stack for database passwords."""

    def filters(self) -> dict[str, object]:
        return {"scram_verifier": scram_verifier}
