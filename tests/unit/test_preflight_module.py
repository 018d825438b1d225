"""The preflight module finds every problem of a host, on made-up file systems and real sockets."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tradingbot.stack.plugins.module_utils import (
    stack_health,
    stack_network,
    stack_services,
    target,
)
from ansible_collections.tradingbot.stack.plugins.modules import preflight

ROOT = Path(__file__).resolve().parents[2]

FORKY = 'PRETTY_NAME="Debian GNU/Linux forky/sid"\nID=debian\nVERSION_CODENAME=forky\n'
JAMMY = 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"\nVERSION_CODENAME=jammy\n'
ALPINE = "ID=alpine\nVERSION_ID=3.22.1\n"
SUPPORTED = ["debian 12", "debian forky", "ubuntu 22.04"]
TCP_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ROUTE_HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def what(findings: Iterator[preflight.Problem]) -> list[str]:
    found = list(findings)
    assert all(set(finding) == {"what", "why", "fix"} and all(finding.values()) for finding in found)
    return [finding["what"] for finding in found]


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def system(root: Path, architecture: str = "x86_64", memory: int = 4000) -> dict[str, Any]:
    release = target.os_release(root)
    names = {"id": "ID", "version": "VERSION_ID", "codename": "VERSION_CODENAME"}
    found = {key: release.get(name, "") for key, name in names.items()}
    return {"os": found, "architecture": architecture, "memory_mb": memory}


def demands(**changes: Any) -> dict[str, Any]:
    return {"distributions": SUPPORTED, "architectures": ["x86_64", "aarch64"], "memory_min_mb": 1800} | changes


@pytest.mark.parametrize(("release", "wrong"), [(FORKY, False), (JAMMY, False), (ALPINE, True), ("", True)])
def test_operating_system(tmp_path: Path, release: str, wrong: bool) -> None:
    write(tmp_path, "etc/os-release", release)
    assert what(preflight.check_system(system(tmp_path), demands())) == ["operating system"] * wrong


def test_architecture_and_memory_are_both_told(tmp_path: Path) -> None:
    write(tmp_path, "etc/os-release", JAMMY)
    facts = system(tmp_path, architecture="riscv64", memory=512)
    assert what(preflight.check_system(facts, demands())) == ["architecture", "memory"]


def test_memory_of_proc(tmp_path: Path) -> None:
    write(tmp_path, "proc/meminfo", "MemTotal:        4028436 kB\nMemFree:          100 kB\n")
    assert target.memory_mb(tmp_path) == 3934


def test_disk_counts_the_folder_above_what_is_not_there_yet(tmp_path: Path) -> None:
    path = str(tmp_path / "not" / "yet")
    assert target.existing_parent(path) == str(tmp_path)
    disk = {"path": path, "min_mb": 1, "variable": "docker_host_disk_min_mb"}
    assert what(preflight.check_disks([disk])) == []
    (finding,) = preflight.check_disks([disk | {"min_mb": 10**9}])
    assert path in finding["what"]
    assert str(tmp_path) in finding["fix"]
    assert "docker_host_disk_min_mb" in finding["fix"]


@pytest.mark.parametrize(("offset", "wrong"), [(0, False), (29, False), (-31, True), (31, True)])
def test_clock(offset: int, wrong: bool) -> None:
    assert what(preflight.check_clock(1000.0, 1000.0 + offset, 30)) == ["clock"] * wrong


def test_clock_is_not_checked_without_a_controller() -> None:
    assert what(preflight.check_clock(None, 0.0, 30)) == []


def test_privileges() -> None:
    assert what(preflight.check_privileges(0)) == []
    assert what(preflight.check_privileges(1000)) == ["privileges"]


def test_cgroups_of_both_versions(tmp_path: Path) -> None:
    write(tmp_path, "sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n")
    assert what(preflight.check_cgroups(target.cgroup_controllers(tmp_path))) == ["cgroup controllers"]
    write(tmp_path, "proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t7\t50\t1\n")
    assert what(preflight.check_cgroups(target.cgroup_controllers(tmp_path))) == []


def test_names() -> None:
    start = time.monotonic()
    assert what(preflight.check_names(["localhost", "127.0.0.1", "nowhere.invalid"])) == ["name nowhere.invalid"]
    assert time.monotonic() - start < preflight.NAME_TIMEOUT + 2


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_real_listener_is_found_with_its_process(family: int, address: str) -> None:
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        port = listener.getsockname()[1]
        assert target.listeners({port}) == []  # bound, and not listening yet
        listener.listen()
        (finding,) = preflight.check_ports({port}, "tradingbot", [])
    assert finding["what"] == f"port {port}"
    assert f"(pid {os.getpid()})" in finding["why"]
    assert what(preflight.check_ports({port}, "tradingbot", [])) == []


def test_a_listener_of_a_unit_is_stopped_by_its_unit(tmp_path: Path) -> None:
    write(tmp_path, "proc/net/tcp", TCP_HEAD + "   0: 00000000:0050 00000000:0000 0A 0:0 0:0 0 0 0 4711 1\n")
    write(tmp_path, "proc/812/comm", "nginx\n")
    write(tmp_path, "proc/812/cgroup", "0::/system.slice/nginx.service\n")
    (tmp_path / "proc/812/fd").mkdir()
    (tmp_path / "proc/812/fd/6").symlink_to("socket:[4711]")
    (finding,) = preflight.check_ports({80}, "tradingbot", [], tmp_path)
    assert finding["why"] == "nginx (pid 812) listens on it"
    assert finding["fix"] == "systemctl disable --now nginx.service"


def test_a_listener_that_hides_its_process_is_told(tmp_path: Path) -> None:
    write(tmp_path, "proc/net/tcp6", TCP_HEAD + f"   0: {'0' * 32}:01BB {'0' * 32}:0000 0A 0:0 0:0 0 0 0 99 1\n")
    (finding,) = preflight.check_ports({443}, "tradingbot", [], tmp_path)
    assert "cannot be seen" in finding["why"]


def test_a_connection_from_a_port_does_not_take_it(tmp_path: Path) -> None:
    write(tmp_path, "proc/net/tcp", TCP_HEAD + "   0: 0100007F:0050 0100007F:C350 01 0:0 0:0 0 0 0 4711 1\n")
    assert what(preflight.check_ports({80}, "tradingbot", [], tmp_path)) == []


def container(project: str, port: int) -> dict[str, Any]:
    published = [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": port, "Type": "tcp"},
        {"PrivatePort": 9, "Type": "tcp"},
    ]
    return {"Names": ["/web"], "Labels": {"com.docker.compose.project": project}, "Ports": published}


def test_a_port_may_be_held_by_the_project_and_by_no_other_container(tmp_path: Path) -> None:
    # Without the user-land proxy the engine itself holds the socket.
    write(tmp_path, "proc/net/tcp", TCP_HEAD + "   0: 00000000:0050 00000000:0000 0A 0:0 0:0 0 0 0 4711 1\n")
    assert what(preflight.check_ports({80}, "tradingbot", [container("tradingbot", 80)], tmp_path)) == []
    (finding,) = preflight.check_ports({80}, "tradingbot", [container("other", 80)], tmp_path)
    assert "container web" in finding["why"]
    assert "docker stop web" in finding["fix"]
    assert what(preflight.check_ports({443}, "tradingbot", [container("other", 80)], tmp_path)) == []


NETWORK = {"name": "tradingbot-network", "subnet": "172.20.0.0/16", "bridge": "br-tradingbot"}


def existing(subnet: str, bridge: str | None) -> dict[str, Any]:
    options = {"com.docker.network.bridge.name": bridge} if bridge else {}
    return {"Id": "0123456789abcdef", "IPAM": {"Config": [{"Subnet": subnet}]}, "Options": options}


@pytest.mark.parametrize(
    ("interface", "destination", "mask", "wrong"),
    [
        ("eth0", "00000000", "00000000", False),  # the default route
        ("eth0", "0000630A", "00FFFFFF", False),  # 10.99.0.0/24
        ("tun0", "000010AC", "0000F0FF", True),  # 172.16.0.0/12, a VPN over it
        ("br-abc", "000514AC", "00FFFFFF", True),  # 172.20.5.0/24, within it
        ("br-tradingbot", "000014AC", "0000FFFF", False),  # our own
    ],
)
def test_routes_that_meet_the_subnet(tmp_path: Path, interface: str, destination: str, mask: str, wrong: bool) -> None:
    write(
        tmp_path,
        "proc/net/route",
        f"{ROUTE_HEAD}{interface}\t{destination}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n",
    )
    found = preflight.check_network(NETWORK, existing("172.20.0.0/16", "br-tradingbot"), tmp_path)
    assert what(found) == ["subnet 172.20.0.0/16"] * wrong


@pytest.mark.parametrize(("subnet", "wrong"), [("10.1.0.0/27", 0), ("10.1.0.0/28", 1), ("10.1.0.1/32", 1)])
def test_a_network_has_room_before_the_addresses_of_the_slots(tmp_path: Path, subnet: str, wrong: int) -> None:
    found = list(preflight.check_network(NETWORK | {"subnet": subnet}, None, tmp_path))
    assert what(iter(found)) == ["docker_host_network_subnet"] * wrong
    assert all(subnet in one["why"] and "a prefix of 27 or less" in one["fix"] for one in found)


@pytest.mark.parametrize(
    ("subnet", "bridge", "wrong"),
    [
        ("172.20.0.0/16", "br-tradingbot", False),
        ("172.21.0.0/16", "br-tradingbot", True),
        ("172.20.0.0/16", None, True),
    ],
)
def test_an_existing_network_is_never_made_anew(tmp_path: Path, subnet: str, bridge: str | None, wrong: bool) -> None:
    found = preflight.check_network(NETWORK, existing(subnet, bridge), tmp_path)
    assert what(found) == ["network tradingbot-network"] * wrong


def firewall(**changes: Any) -> dict[str, Any]:
    return {"ssh_sources": ["192.0.2.0/24", "2001:db8::/64"], "ssh_port": 0, "other_sources": []} | changes


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_a_firewall_that_lets_the_operator_in(address: str) -> None:
    assert what(preflight.check_firewall(firewall(ssh_port=22), {"address": address, "port": 22})) == []


def test_a_host_without_ssh_has_no_operator_to_lock_out() -> None:
    assert what(preflight.check_firewall(firewall(ssh_port=22), {})) == []


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8:1::7"])
def test_a_firewall_that_locks_the_operator_out(address: str) -> None:
    (finding,) = preflight.check_firewall(firewall(), {"address": address, "port": 22})
    assert finding["what"] == "docker_host_firewall_ssh_sources"
    assert address in finding["why"]
    assert address in finding["fix"]


def test_a_firewall_that_closes_the_port_in_use() -> None:
    (finding,) = preflight.check_firewall(firewall(ssh_port=22), {"address": "192.0.2.7", "port": 2222})
    assert finding["what"] == "docker_host_firewall_ssh_port"
    assert "2222" in finding["fix"]


def test_an_unset_firewall_source() -> None:
    (finding,) = preflight.check_firewall(firewall(ssh_sources=[]), {"address": "192.0.2.7", "port": 22})
    assert finding["fix"] == "docker_host_firewall_ssh_sources: [192.0.2.7]"


@pytest.mark.parametrize("source", ["office", "192.0.2.7/24", ""])
def test_a_malformed_firewall_source(source: str) -> None:
    assert what(preflight.check_firewall(firewall(other_sources=[source]), {})) == ["firewall source"]


def process(root: Path, pid: int, parent: int, environment: str) -> None:
    write(root, f"proc/{pid}/status", f"Name:\tx\nPid:\t{pid}\nPPid:\t{parent}\n")
    write(root, f"proc/{pid}/environ", environment)


@pytest.mark.parametrize(
    ("peer", "address"),
    [("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("fe80::7%eth0", "fe80::7")],
)
def test_the_connection_is_found_above_sudo(tmp_path: Path, peer: str, address: str) -> None:
    process(tmp_path, 30, 20, "SUDO_USER=deploy\0")
    process(tmp_path, 20, 10, f"HOME=/home/deploy\0SSH_CONNECTION={peer} 51000 203.0.113.1 2222\0")
    process(tmp_path, 10, 1, "")
    assert target.ssh_connection(30, tmp_path) == {"address": address, "port": 2222}


def test_no_connection_without_ssh(tmp_path: Path) -> None:
    process(tmp_path, 30, 1, "HOME=/root\0")
    assert target.ssh_connection(30, tmp_path) == {}


@pytest.mark.parametrize(
    ("version", "wrong"),
    [
        ("26.1.5+dfsg1-9", False),
        ("5:28.5.1-1~debian.12~bookworm", False),
        ("20.10.24+dfsg1-1", True),
        ("25.0.0", False),
    ],
)
def test_versions(version: str, wrong: bool) -> None:
    found = preflight.check_versions({"docker.io": version}, {"docker.io": "25.0", "docker-ce": "25.0"})
    assert what(found) == ["package docker.io"] * wrong


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"], []),
        (["name=seccomp,profile=builtin"], ["AppArmor"]),
        (["name=apparmor"], ["seccomp"]),
        (["name=apparmor", "name=seccomp,profile=unconfined"], ["seccomp"]),
        (None, ["AppArmor", "seccomp"]),
    ],
)
def test_what_confines_no_container_is_a_warning(options: list[str] | None, words: list[str]) -> None:
    warnings = list(preflight.confinement_warnings({"SecurityOptions": options}))
    assert [warning.split()[0] for warning in warnings] == words
    assert all("Fix: " in warning for warning in warnings)
    assert list(preflight.confinement_warnings(None)) == []


@pytest.mark.parametrize(("text", "options"), [('{"debug": true}', {"debug": True}), ("{", {}), ("[]", {}), (None, {})])
def test_daemon_options(tmp_path: Path, text: str | None, options: dict[str, Any]) -> None:
    path = tmp_path / "daemon.json"
    if text is not None:
        path.write_text(text)
    assert preflight.daemon_options(path) == options


class Machine:
    """Answers in place of the programs of a host."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def get_bin_path(self, name: str, **_: Any) -> str:
        return f"/usr/bin/{name}"

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        return 0, self.answer, ""


def test_options_that_the_engine_has_not_read_yet(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text("{}")
    now = int(time.monotonic() * 1e6)

    def pending(since: int) -> bool:
        unit = preflight.unit(Machine(f"ActiveState=active\nStateChangeTimestampMonotonic={since}\n"), "docker.service")
        return preflight.daemon_options_pending(unit, path)

    assert pending(now - 5_000_000)
    assert not pending(now + 5_000_000)
    assert not pending(0)  # never started
    assert not preflight.daemon_options_pending({}, path)  # no systemd


@pytest.mark.parametrize(
    ("state", "file", "reload", "enabled"),
    [
        ("active", "enabled", "no", True),
        ("inactive", "enabled", "no", False),
        ("active", "disabled", "no", False),
        ("active", "enabled", "yes", False),  # its file has changed since systemd read it
        ("inactive", "", "no", False),
    ],
)
def test_a_unit_runs_now_and_after_a_reboot(state: str, file: str, reload: str, enabled: bool) -> None:
    said = f"ActiveState={state}\nUnitFileState={file}\nNeedDaemonReload={reload}\nStateChangeTimestampMonotonic=1\n"
    assert preflight.enabled(preflight.unit(Machine(said), "docker.service")) is enabled


def test_kernel_settings_that_do_not_hold(tmp_path: Path) -> None:
    file = tmp_path / "90-tradingbot.conf"
    wanted = {"vm.overcommit_memory": 1, "net.ipv4.ip_local_port_range": "1024 65000"}
    write(tmp_path, "proc/sys/vm/overcommit_memory", "1\n")
    write(tmp_path, "proc/sys/net/ipv4/ip_local_port_range", "1024\t65000\n")
    assert preflight.unset_sysctls(wanted, file, tmp_path) == wanted  # a reboot would lose them
    file.write_text("vm.overcommit_memory=1\nnet.ipv4.ip_local_port_range=1024 65000\n")
    assert preflight.unset_sysctls(wanted, file, tmp_path) == {}
    write(tmp_path, "proc/sys/vm/overcommit_memory", "0\n")
    assert preflight.unset_sysctls(wanted, file, tmp_path) == {"vm.overcommit_memory": 1}


def test_only_whole_packages_count() -> None:
    machine = Machine("docker.io 26.1.5 installed\ndocker-cli 26.1.5 config-files\n")
    assert preflight.installed_packages(machine, ["docker.io", "docker-cli"]) == {"docker.io": "26.1.5"}


def test_the_engine_is_asked_over_its_socket(tmp_path: Path) -> None:
    class Engine(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            status = "200 OK" if self.rfile.readline().startswith(b"GET /containers/json ") else "404 Not Found"
            while self.rfile.readline().strip():
                pass
            self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]".encode())

    path = str(tmp_path / "docker.sock")
    assert target.docker_get("/containers/json", path) is None  # no engine
    with socketserver.UnixStreamServer(path, Engine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert target.docker_get("/containers/json", path) == []
        assert target.docker_get("/networks/none", path) is None
        server.shutdown()


def test_the_module_runs_by_itself_and_changes_nothing() -> None:
    arguments = {
        "distributions": ["plan9 4"],
        "architectures": ["pdp11"],
        "controller_time": 0,
        "firewall": {"ssh_sources": []},
        "_ansible_check_mode": True,
        "_ansible_remote_tmp": "/tmp",
    }
    program = (
        "import json, sys\n"
        "from ansible.module_utils import basic\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "from ansible_collections.tradingbot.stack.plugins.modules import preflight\n"
        "with patch_module_args(json.loads(sys.argv[1])):\n"
        "    preflight.main()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, json.dumps(arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT / ".cache" / "collections")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    result = json.loads(run.stdout)
    told = {finding["what"] for finding in result["problems"]}
    assert not result["changed"]
    assert {"clock", "operating system", "architecture", "docker_host_firewall_ssh_sources"} <= told
    assert result["facts"]["memory_mb"] > 0


DEBIAN, OWN = ["/usr/lib/python3.13", preflight.DIST_PACKAGES], ["/opt/python/lib/python3.13/site-packages"]


@pytest.mark.parametrize(("search", "wrong"), [(DEBIAN, False), (OWN, True)], ids=["packages bring it", "nothing does"])
def test_a_python_that_lacks_what_the_modules_need(search: list[str], wrong: bool) -> None:
    found = list(preflight.check_python({"python3-nowhere": "nowhere"}, search, "/opt/python/bin/python3"))
    assert [problem["what"] for problem in found] == ["ansible_python_interpreter"] * wrong
    for problem in found:
        assert "/opt/python/bin/python3 has no nowhere" in problem["why"]
        assert problem["fix"].endswith("or `/opt/python/bin/python3 -m pip install nowhere`")


def test_a_python_of_ones_own_that_has_it_is_taken() -> None:
    assert list(preflight.check_python({"python3-json": "json"}, OWN, "/opt/python/bin/python3")) == []


def test_the_look_at_the_network_is_that_of_the_health_check(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[stack_health.Settings] = []

    def network_state(_: object, settings: stack_health.Settings) -> dict[str, Any]:
        asked.append(settings)
        return {"forwarding": {}, "firewall": "", "rules": [], "unknown": {}, "flushed_by": [], "outside": None}

    monkeypatch.setattr(stack_services, "containers", lambda _: [{}])
    monkeypatch.setattr(stack_health, "network_state", network_state)
    params = {"project": "mybot", "project_dir": "/srv/bot", "firewall": None, "thresholds": {"from_outside": False}}
    assert preflight.network_problems(params) == []
    (settings,) = asked
    assert (settings.project, settings.project_dir, settings.firewall) == ("mybot", "/srv/bot", False)
    assert settings.limit("from_outside") is False
    # A host that has no project yet has no folder of one.
    preflight.network_problems(params | {"project_dir": None})


@pytest.mark.parametrize(("found", "confirmed"), [("", True), ("it is not loaded", False), (None, True)])
def test_a_firewall_that_cannot_be_looked_at_is_not_changed_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str | None, confirmed: bool
) -> None:
    def firewall_difference() -> str:
        if found is None:
            raise stack_network.LookError("unshare: Operation not permitted")
        return found

    for name in ("RULESET", "CONFIRMED_RULESET"):
        path = tmp_path / name
        path.write_text("table inet tradingbot {}\n")
        monkeypatch.setattr(preflight, name, path)
    monkeypatch.setattr(stack_network, "firewall_difference", firewall_difference)
    assert preflight.firewall_confirmed() is confirmed
    (tmp_path / "CONFIRMED_RULESET").write_text("table inet other {}\n")
    assert preflight.firewall_confirmed() is False
