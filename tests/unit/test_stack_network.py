# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The look at the way of clients names what is wrong with it, on made-up hosts, engines and rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tradingbot.stack.plugins.module_utils import stack_network, target

IPTABLES = """*filter
:FORWARD DROP [0:0]
-A FORWARD -o br-tradingbot -j DOCKER
-A DOCKER -d 172.20.0.2/32 ! -i br-tradingbot -o br-tradingbot -p tcp -m tcp --dport 8443 -j ACCEPT
COMMIT
*nat
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.20.0.0/16 ! -o br-tradingbot -j MASQUERADE
-A DOCKER -p tcp -m tcp --dport 443 -j DNAT --to-destination 172.20.0.2:8443
COMMIT
"""
NFTABLES = """table ip docker-bridges {
    chain nat-prerouting-and-output {
        iifname != "br-tradingbot" tcp dport 443 counter packets 0 bytes 0 dnat to 172.20.0.2:8443 comment "DNAT"
    }
    chain filter-forward-in__br-tradingbot {
        ip daddr 172.20.0.2 tcp dport 8443 counter packets 0 bytes 0 accept
    }
    chain nat-postrouting-out__br-tradingbot {
        oifname != "br-tradingbot" ip saddr 172.20.0.0/16 counter packets 0 bytes 0 masquerade comment "MASQUERADE"
    }
}
"""
LATE = "timed out after 5 seconds"
WELL = {"url": "https://203.0.113.7:443", "source": "192.0.2.2", "status": 200, "milliseconds": 9, "error": ""}
CLOSED = WELL | {"status": 0, "error": "no connection"}


def nginx(*addresses: str, port: int = 443, inside: str = "8443/tcp") -> dict[str, Any]:
    """What the engine says of a web server that is published on *addresses*."""
    network = {"NetworkID": "ours", "IPAddress": "172.20.0.2", "GlobalIPv6Address": ""}
    return {
        "State": {"Running": True},
        "Config": {"Labels": {"com.docker.compose.service": "nginx"}},
        "NetworkSettings": {
            "Networks": {"tradingbot-network": network},
            "Ports": {"80/tcp": None, inside: [{"HostIp": one, "HostPort": str(port)} for one in addresses]},
        },
    }


class Rules:
    """Answers in place of the programs that show rules."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.iptables, self.nftables, self.units = IPTABLES, "", ""
        self.network: dict[str, Any] = {
            "Driver": "bridge",
            "Internal": False,
            "Options": {},
            "IPAM": {"Config": [{"Subnet": "172.20.0.0/16"}, {"Subnet": "fd00::/64"}]},
        }
        self.options = tmp_path / "daemon.json"
        monkeypatch.setattr(stack_network, "output", self.output)
        monkeypatch.setattr(stack_network, "DAEMON_JSON", self.options)
        monkeypatch.setattr(target, "docker_get", lambda _: self.network)

    def output(self, *command: str, stdin: str = "") -> str:
        text = {"iptables-save": self.iptables, "nft": self.nftables, "systemctl": self.units}[command[0]]
        if not text or text == LATE:
            raise stack_network.LookError(f"{command[0]}: {text or 'Error: No such file or directory'}")
        return text


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Rules:
    return Rules(monkeypatch, tmp_path)


@pytest.mark.parametrize(("iptables", "nftables"), [(IPTABLES, ""), ("", NFTABLES), ("*nat\nCOMMIT\n", NFTABLES)])
def test_rules_of_either_backend_are_found(rules: Rules, iptables: str, nftables: str) -> None:
    rules.iptables, rules.nftables = iptables, nftables
    assert stack_network.missing_rules([nginx("0.0.0.0", "::")]) == []


@pytest.mark.parametrize("words", ["DNAT", "-j ACCEPT", "-A PREROUTING", "-A FORWARD"])
def test_a_port_needs_each_rule_of_iptables(rules: Rules, words: str) -> None:
    rules.iptables = "\n".join(line for line in IPTABLES.splitlines() if words not in line)
    assert stack_network.missing_rules([nginx("0.0.0.0")]) == ["port 443 of nginx"]


@pytest.mark.parametrize("words", ["dnat to", "accept"])
def test_a_port_needs_each_rule_of_nftables(rules: Rules, words: str) -> None:
    rules.iptables = ""
    rules.nftables = "\n".join(line for line in NFTABLES.splitlines() if words not in line)
    assert stack_network.missing_rules([nginx("0.0.0.0")]) == ["port 443 of nginx"]


def test_what_is_published_over_ipv6_alone_needs_none_of_ipv4(rules: Rules) -> None:
    rules.iptables = ""
    rules.nftables = "table ip other {\n}\n"
    assert stack_network.missing_ports(nginx("::")) == []
    assert stack_network.missing_ports(nginx("0.0.0.0", "::")) == ["port 443 of nginx"]
    assert stack_network.published(nginx("0.0.0.0", "::")) == [("", 443, 8443), ("::", 443, 8443)]


def test_rules_for_another_address_are_no_rules(rules: Rules) -> None:
    rules.iptables = IPTABLES.replace("172.20.0.2", "172.20.0.22")
    assert stack_network.missing_rules([nginx("0.0.0.0")]) == ["port 443 of nginx"]


def test_what_goes_out_needs_a_rule_unless_the_network_is_told_otherwise(rules: Rules) -> None:
    rules.iptables = IPTABLES.replace("MASQUERADE", "RETURN")
    assert stack_network.missing_rules([nginx("0.0.0.0")]) == ["what leaves 172.20.0.0/16"]
    rules.network["Options"] = {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    assert stack_network.missing_rules([nginx("0.0.0.0")]) == []


def test_an_engine_that_may_write_no_rules_misses_none(rules: Rules) -> None:
    rules.iptables = "*nat\nCOMMIT\n"
    assert stack_network.missing_rules([nginx("0.0.0.0")]) != []
    rules.options.write_text(json.dumps({"iptables": False}))
    assert stack_network.missing_rules([nginx("0.0.0.0")]) == []


@pytest.mark.parametrize(
    ("iptables", "nftables", "why"),
    [
        (LATE, "", "iptables-save: timed out"),
        (LATE, NFTABLES, "iptables-save: timed out"),
        ("*nat\nCOMMIT\n", LATE, "nft: timed out"),
        ("", "", "neither iptables-save nor nft shows rules"),
    ],
)
def test_a_look_at_the_engine_s_rules_that_fails_is_no_look_at_rules_that_are_gone(
    rules: Rules, iptables: str, nftables: str, why: str
) -> None:
    rules.iptables, rules.nftables = iptables, nftables
    with pytest.raises(stack_network.LookError, match=why):
        stack_network.missing_rules([nginx("0.0.0.0")])
    with pytest.raises(stack_network.LookError, match=why):
        stack_network.missing_ports(nginx("0.0.0.0"))


def test_looks_that_fail_are_findings_of_their_own(rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    def firewall_difference() -> str:
        raise stack_network.LookError("unshare: Operation not permitted")

    rules.iptables = LATE
    monkeypatch.setattr(stack_network, "firewall_difference", firewall_difference)
    monkeypatch.setattr(stack_network, "unset_forwarding", lambda _: {})
    found = stack_network.look([nginx("0.0.0.0")], None, True, None)
    assert (found["firewall"], found["rules"], found["flushed_by"]) == ("", [], [])
    listed = stack_network.problems(found, None)
    assert [f"{one['what']}: {one['why']}" for one in listed] == [
        "look at firewall: what is loaded could not be looked at: unshare: Operation not permitted",
        f"look at Docker's rules: what is loaded could not be looked at: iptables-save: {LATE}",
    ]
    assert not any("site.yml" in one["fix"] or "tradingbot rules" in one["fix"] for one in listed)


def test_masquerading_that_is_off_for_the_default_bridge_is_not_off_for_the_stack(rules: Rules) -> None:
    rules.options.write_text(json.dumps({"ip-masq": False}))
    rules.iptables = IPTABLES.replace("MASQUERADE", "RETURN")
    assert stack_network.missing_rules([nginx("0.0.0.0")]) == ["what leaves 172.20.0.0/16"]


def test_who_loaded_rules_after_the_engine_is_named(rules: Rules) -> None:
    form = "Id={}\nActiveEnterTimestampMonotonic={}\nStateChangeTimestampMonotonic={}\n"
    units = [("docker.service", 20, 40), ("nftables.service", 10, 30), ("netfilter-persistent.service", 5, 5)]
    rules.units = "\n".join(form.format(*unit) for unit in units)
    assert stack_network.flushed_by() == ["nftables.service"]
    rules.units = ""
    assert stack_network.flushed_by() == []


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host that forwards, with a default route by eth0."""
    header = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    rows = "br-x\t000014AC\t00000000\t1\t0\t0\t0\t0000FFFF\neth0\t00000000\t010000C0\t3\t0\t0\t0\t00000000\n"
    write(tmp_path, "proc/net/route", header + rows)
    for name in ("ipv4/ip_forward", "ipv4/conf/eth0/forwarding"):
        write(tmp_path, f"proc/sys/net/{name}", "1\n")
    write(tmp_path, "proc/sys/net/ipv6/conf/all/forwarding", "0\n")
    return tmp_path


def test_forwarding_is_on(root: Path) -> None:
    assert stack_network.unset_forwarding([nginx("0.0.0.0")], root) == {}


def test_forwarding_is_off_and_so_say_files(root: Path) -> None:
    write(root, "proc/sys/net/ipv4/ip_forward", "0\n")
    write(root, "proc/sys/net/ipv4/conf/eth0/forwarding", "0\n")
    write(root, "etc/sysctl.d/99-hardening.conf", "# harden\nnet.ipv4.ip_forward = 0\n")
    write(root, "etc/sysctl.d/10-other.conf", "net.ipv4.ip_forward = 1\n#net.ipv4.ip_forward = 0\n")
    write(root, "etc/sysctl.conf", "-net/ipv4/conf/all/forwarding=0\n")
    files = ["/etc/sysctl.d/99-hardening.conf", "/etc/sysctl.conf"]
    assert stack_network.unset_forwarding([], root) == {"net.ipv4.ip_forward": files}


def test_forwarding_may_be_off_for_the_way_in_or_for_ipv6_only(root: Path) -> None:
    write(root, "proc/sys/net/ipv4/conf/eth0/forwarding", "0\n")
    web = nginx("0.0.0.0")
    assert stack_network.unset_forwarding([web], root) == {"net.ipv4.conf.eth0.forwarding": []}
    web["NetworkSettings"]["Networks"]["tradingbot-network"]["GlobalIPv6Address"] = "2001:db8::2"
    assert list(stack_network.unset_forwarding([web], root)) == [
        "net.ipv4.conf.eth0.forwarding",
        "net.ipv6.conf.all.forwarding",
    ]


class TestFirewall:
    """The loaded table against the confirmed rules."""

    @pytest.fixture
    def confirmed(self, tmp_path: Path) -> Path:
        path = tmp_path / "firewall.confirmed.nft"
        path.write_text("table inet tradingbot {}\n")
        return path

    def test_nothing_was_confirmed(self, tmp_path: Path) -> None:
        path = tmp_path / "firewall.confirmed.nft"
        assert stack_network.firewall_difference(path) == f"{path} is not there: no rules were confirmed"

    @pytest.mark.parametrize(
        ("loaded", "wanted", "said"),
        [
            ("table {}", "table {}", ""),
            ("table {}", "table { chain }", "is not what"),
            (None, "table {}", "is not loaded"),
        ],
    )
    def test_difference(
        self, confirmed: Path, monkeypatch: pytest.MonkeyPatch, loaded: str | None, wanted: str, said: str
    ) -> None:
        def output(program: str, *_: str) -> str:
            text = {"nft": loaded, "unshare": wanted}[program]
            if text is None:
                raise stack_network.LookError(f"{program}: Error: No such file or directory")
            return text

        monkeypatch.setattr(stack_network, "output", output)
        found = stack_network.firewall_difference(confirmed)
        assert said in found
        assert bool(found) == bool(said)

    @pytest.mark.parametrize("program", ["nft", "unshare"])
    def test_what_cannot_be_compared_is_no_difference(
        self, confirmed: Path, monkeypatch: pytest.MonkeyPatch, program: str
    ) -> None:
        def output(asked: str, *_: str) -> str:
            if asked == program:
                raise stack_network.LookError(f"{program}: {LATE}")
            return "table {}"

        monkeypatch.setattr(stack_network, "output", output)
        with pytest.raises(stack_network.LookError, match=program):
            stack_network.firewall_difference(confirmed)


class TestOutside:
    """A client from outside, without the kernel's part."""

    @pytest.fixture(autouse=True)
    def kernel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @contextmanager
        def outside() -> Iterator[tuple[str, str]]:
            yield "192.0.2.2", "192.0.2.1"

        self.open = True
        monkeypatch.setattr(stack_network, "outside", outside)
        monkeypatch.setattr(stack_network, "connects", lambda *_: self.open)
        monkeypatch.setattr(stack_network, "host_address", lambda: "203.0.113.7")

    def ask(self, scheme: str, host: str, port: int, _: float) -> tuple[int, str]:
        return 200, f"{scheme} {host} {port}"

    @pytest.mark.parametrize(
        ("web", "url"),
        [
            (nginx("0.0.0.0", "::"), "https://203.0.113.7:443"),
            (nginx("127.0.0.1", "198.51.100.4"), "https://198.51.100.4:443"),
            (nginx("0.0.0.0", port=80, inside="8080/tcp"), "http://203.0.113.7:80"),
        ],
    )
    def test_it_asks_where_the_web_server_is_published(self, web: dict[str, Any], url: str) -> None:
        found = stack_network.from_outside(web, self.ask)
        assert found is not None
        assert (found["url"], found["source"], found["status"], found["error"]) == (url, "192.0.2.2", 200, "")

    @pytest.mark.parametrize("web", [nginx("127.0.0.1"), nginx("::1"), nginx()])
    def test_a_port_on_loopback_is_not_for_clients_from_outside(self, web: dict[str, Any]) -> None:
        assert stack_network.from_outside(web, self.ask) is None

    def test_a_host_without_a_way_out_is_asked_at_the_way_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stack_network, "host_address", lambda: "")
        found = stack_network.from_outside(nginx("0.0.0.0"), self.ask)
        assert found is not None
        assert found["url"] == "https://192.0.2.1:443"

    def test_no_connection(self) -> None:
        self.open = False
        found = stack_network.from_outside(nginx("0.0.0.0"), self.ask)
        assert found is not None
        assert (found["status"], found["error"]) == (0, "no connection")

    def test_a_kernel_that_does_not_let_it_look(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def outside() -> Any:
            raise stack_network.LookError("unshare: Operation not permitted")

        monkeypatch.setattr(stack_network, "outside", outside)
        found = stack_network.from_outside(nginx("0.0.0.0"), self.ask)
        assert found is not None
        assert (found["status"], found["error"]) == (None, "unshare: Operation not permitted")


def told(web: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    found = {"forwarding": {}, "firewall": "", "rules": [], "flushed_by": [], "outside": WELL} | changes
    listed = stack_network.problems(found, web or {"status": 200})
    assert all(set(one) == {"what", "why", "fix"} and all(one.values()) for one in listed)
    return [f"{one['what']}: {one['why']}. {one['fix']}" for one in listed]


def test_clients_get_in() -> None:
    assert told() == []
    assert told(outside=None) == []
    assert told(outside=WELL | {"status": 502}) == []  # which the look over loopback names


def test_problems_name_the_cause_what_comes_of_it_and_the_way_out() -> None:
    (said,) = told(forwarding={"net.ipv4.ip_forward": ["/etc/sysctl.d/99-x.conf"]}, outside=CLOSED)
    assert said == (
        "forwarding: net.ipv4.ip_forward is 0 (/etc/sysctl.d/99-x.conf says so), so the host passes no packet on to"
        " containers: no client gets in. run site.yml, or `sysctl -w net.ipv4.ip_forward=1`, and take it out of"
        " /etc/sysctl.d/99-x.conf"
    )
    (said,) = told(firewall="the table `inet tradingbot` is not loaded")
    assert said.startswith("firewall: the table `inet tradingbot` is not loaded: ports may be open to everybody")
    assert said.endswith("run site.yml, or `tradingbot rules` on the host")
    (said,) = told(firewall=f"/etc/x is not there: {stack_network.UNCONFIRMED}")
    assert said.endswith("run site.yml")  # which alone confirms rules
    (said,) = told(rules=["port 443 of nginx"], flushed_by=["nftables.service"], outside=CLOSED)
    assert said.startswith(
        "Docker's rules: they are gone for port 443 of nginx: nftables.service loaded its rules after the engine had"
        " written these; no client gets in. run site.yml, or `tradingbot rules`"
    )


def test_a_way_that_is_closed_without_a_cause() -> None:
    (said,) = told(outside=CLOSED)
    assert said.startswith("clients: https://203.0.113.7:443 does not answer from outside (no connection)")
    assert "from 192.0.2.2" in said
    assert told({"status": 0}, outside=CLOSED) == []  # the web server answers nobody: that is named already


def test_what_cannot_be_looked_at_is_said() -> None:
    (said,) = told(outside=CLOSED, unknown={"Docker's rules": "iptables-save: late"})
    assert "could not be looked at: iptables-save: late; no client gets in" in said
    (said,) = told(outside=WELL | {"status": None, "error": "ip: not there"})
    assert said.startswith("look from outside: whether clients get in is unknown: ip: not there")


def test_programs_that_fail_say_why() -> None:
    assert stack_network.output("echo", "x") == "x\n"
    with pytest.raises(stack_network.LookError, match=r"no-such-program: .*No such file"):
        stack_network.output("no-such-program")
    with pytest.raises(stack_network.LookError, match=r"^sh: went wrong$"):
        stack_network.output("sh", "-c", "echo went wrong >&2; false")
    with pytest.raises(stack_network.LookError, match="exit code 3"):
        stack_network.output("sh", "-c", "exit 3")
