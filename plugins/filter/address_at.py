# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter that picks one address of a network."""

from __future__ import annotations

DOCUMENTATION = r"""
name: address_at
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.3.0
short_description: The address at a place of a network
description:
  - Counts from the network's own address, which is 0. Negative places count from its end, where -1 is the last address.
positional: index
options:
  _input:
    description: Network with its prefix length, IPv4 or IPv6.
    type: str
    required: true
  index:
    description: Place of the address.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Show the fourth address below the broadcast address, 172.20.255.251
  ansible.builtin.debug:
    msg: "{{ '172.20.0.0/16' | tradingbot.stack.address_at(-5) }}"
"""

RETURN = r"""
_value:
  description: The address.
  type: str
"""

import ipaddress

from ansible.errors import AnsibleFilterError


def address_at(subnet: object, index: object) -> str:
    """Return the address at place *index* of the network *subnet*.

    Raises AnsibleFilterError for what is not a network, not a whole number, or outside of the network.
    """
    if isinstance(subnet, int) or "/" not in str(subnet):
        raise AnsibleFilterError(f"{subnet!r} is not a network: write it with its prefix length, like 172.20.0.0/16")
    try:
        network = ipaddress.ip_network(str(subnet))
    except ValueError as error:
        raise AnsibleFilterError(f"{subnet!r} is not a network: {error}; write it like 172.20.0.0/16") from error
    try:
        # A boolean would count as 0 or 1, and a fraction be cut.
        place = int(str(index))
    except ValueError as error:
        raise AnsibleFilterError(f"the place in {network} must be a whole number, not {index!r}") from error
    try:
        return str(network[place])
    except IndexError as error:
        size = network.num_addresses
        raise AnsibleFilterError(
            f"there is no place {place} in {network}: it has {size} addresses, at 0 to {size - 1} or -1 to -{size}"
        ) from error


class FilterModule:
    """Filter of tradingbot.stack for addresses."""

    def filters(self) -> dict[str, object]:
        return {"address_at": address_at}
