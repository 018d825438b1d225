# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Which address of a network is at which place."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.tradingbot.stack.plugins.filter.address_at import FilterModule, address_at


@pytest.mark.parametrize(
    ("subnet", "index", "address"),
    [
        ("172.20.0.0/16", 0, "172.20.0.0"),
        ("172.20.0.0/16", 1, "172.20.0.1"),
        ("172.20.0.0/16", 65535, "172.20.255.255"),
        ("172.20.0.0/16", -1, "172.20.255.255"),
        ("172.20.0.0/16", -4, "172.20.255.252"),
        ("172.20.0.0/16", "-5", "172.20.255.251"),
        ("10.9.8.0/29", -8, "10.9.8.0"),
        ("fd00::/64", -1, "fd00::ffff:ffff:ffff:ffff"),
    ],
)
def test_counts_from_either_end(subnet: str, index: object, address: str) -> None:
    assert address_at(subnet, index) == address


@pytest.mark.parametrize(
    ("subnet", "index", "named"),
    [
        ("", 0, "'' is not a network"),
        ("172.20.0.0", 0, "'172.20.0.0' is not a network: write it with its prefix length"),
        (2886991872, 0, "2886991872 is not a network"),
        ("172.20.0.1/16", 0, "'172.20.0.1/16' is not a network: 172.20.0.1/16 has host bits set"),
        ("172.20.0.0/33", 0, "'172.20.0.0/33' is not a network"),
        ("network/16", 0, "'network/16' is not a network"),
        ("172.20.0.0/16", "last", "must be a whole number, not 'last'"),
        ("172.20.0.0/16", 1.5, "must be a whole number, not 1.5"),
        ("172.20.0.0/16", True, "must be a whole number, not True"),
        ("172.20.0.0/16", None, "must be a whole number, not None"),
        ("10.9.8.0/29", 8, "no place 8 in 10.9.8.0/29: it has 8 addresses"),
        ("10.9.8.0/29", -9, "no place -9 in 10.9.8.0/29"),
    ],
)
def test_bad_input_is_named(subnet: object, index: object, named: str) -> None:
    with pytest.raises(AnsibleFilterError) as raised:
        address_at(subnet, index)
    assert named in str(raised.value)


def test_is_a_filter() -> None:
    assert FilterModule().filters() == {"address_at": address_at}
