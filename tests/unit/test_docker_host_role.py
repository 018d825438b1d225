"""What the role docker_host decides and renders."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template
from ansible_collections.tradingbot.stack.plugins.module_utils import stack_network
from rendering import ROOT, evaluate, render
from small_host import problems

ROLE = "docker_host"


def host(
    codename: str = "trixie", identity: str = "debian", packages: tuple[str, ...] = (), **facts: Any
) -> dict[str, Any]:
    found = {
        "os": {"id": identity, "version": "", "codename": codename},
        "packages": dict.fromkeys(packages, "28.0"),
        "connection": {"address": "192.0.2.7", "port": 22},
        "docker": {"running": False, "options": {}, "options_pending": False},
        "project": "",
    }
    return {"facts": found | facts, "problems": []}


@pytest.mark.parametrize(
    ("codename", "identity", "installed", "needed", "not_wanted"),
    [
        ("trixie", "debian", (), {"docker.io", "docker-cli", "docker-compose", "docker-buildx"}, {"docker-ce"}),
        ("forky", "debian", (), {"docker.io", "docker-cli", "docker-compose"}, {"docker-ce"}),
        ("bookworm", "debian", (), {"docker-ce", "docker-ce-cli", "docker-compose-plugin"}, {"docker.io"}),
        ("noble", "ubuntu", (), {"docker.io", "docker-compose-v2", "docker-buildx"}, {"docker-ce", "docker-compose"}),
        ("trixie", "debian", ("docker-ce",), {"docker-ce", "docker-buildx-plugin"}, {"docker.io"}),
        ("bookworm", "debian", ("docker.io",), {"docker.io"}, {"docker-ce"}),
    ],
)
def test_packages(
    codename: str, identity: str, installed: tuple[str, ...], needed: set[str], not_wanted: set[str]
) -> None:
    found = host(codename, identity, installed)
    packages = set(evaluate(ROLE, "__docker_host_packages", __docker_host_preflight=found))
    assert needed <= packages
    assert not packages & not_wanted
    assert packages <= set(evaluate(ROLE, "__docker_host_known_packages"))


def test_daemon_json_keeps_what_the_user_says() -> None:
    text = render(
        ROLE,
        "etc/docker/daemon.json.j2",
        docker_host_registry_mirrors=["http://registry:5000"],
        docker_host_daemon_options={"log-opts": {"max-size": "1m"}, "debug": True},
    )
    options = json.loads(text)
    assert options["log-opts"] == {"max-size": "1m", "max-file": "3"}
    assert options["registry-mirrors"] == ["http://registry:5000"]
    assert options["debug"] is True
    assert options["live-restore"] is True
    assert options["userland-proxy"] is False


@pytest.mark.parametrize(
    ("options", "changed", "restart"),
    [
        ({}, set(), False),
        ({"debug": True}, {"debug"}, False),
        ({"live-restore": False, "bip": "172.17.0.1/24"}, {"live-restore", "bip"}, True),
    ],
)
def test_a_restart_only_for_what_a_reload_does_not_take_over(
    options: dict[str, Any], changed: set[str], restart: bool
) -> None:
    running = evaluate(ROLE, "__docker_host_daemon_options")
    found = host(docker={"running": True, "options": running, "options_pending": False})
    variables = {"__docker_host_preflight": found, "docker_host_daemon_options": options}
    assert set(evaluate(ROLE, "__docker_host_changed_options", **variables)) == changed
    left = evaluate(ROLE, "__docker_host_changed_options | difference(__docker_host_reloadable_options)", **variables)
    assert bool(left) == restart


def rules(**variables: Any) -> list[str]:
    text = render(ROLE, "etc/tradingbot/firewall.nft.j2", **({"__docker_host_preflight": host()} | variables))
    chain = text.split("chain allowed {")[1].split("}\n\n")[0]
    return [" ".join(line.split()) for line in chain.splitlines() if "accept" in line]


def test_firewall_opens_ssh_to_its_sources_and_the_web_to_all() -> None:
    assert rules(docker_host_firewall_ssh_sources=["192.0.2.0/24", "2001:db8::/64"]) == [
        "meta l4proto tcp ct original proto-dst { 22 } ip saddr 192.0.2.0/24 accept",
        "meta l4proto tcp ct original proto-dst { 22 } ip6 saddr 2001:db8::/64 accept",
        "meta l4proto tcp ct original proto-dst { 80, 443 } ip saddr 0.0.0.0/0 accept",
        "meta l4proto tcp ct original proto-dst { 80, 443 } ip6 saddr ::/0 accept",
    ]


def test_firewall_uses_the_port_of_the_connection_unless_told() -> None:
    found = host(connection={"address": "192.0.2.7", "port": 2222})
    sources = {"docker_host_firewall_ssh_sources": ["192.0.2.7"], "docker_host_firewall_web_ports": []}
    assert rules(**sources, __docker_host_preflight=found) == [
        "meta l4proto tcp ct original proto-dst { 2222 } ip saddr 192.0.2.7 accept"
    ]
    assert "{ 2200 }" in rules(**sources, docker_host_firewall_ssh_port=2200)[0]
    assert "{ 22 }" in rules(**sources, __docker_host_preflight=host(connection={}))[0]


def test_firewall_takes_further_rules() -> None:
    extra = [{"ports": [5432, 6379], "sources": ["10.0.0.5"]}, {"ports": [9000], "sources": []}]
    found = rules(docker_host_firewall_web_ports=[], docker_host_firewall_rules=extra)
    assert found == ["meta l4proto tcp ct original proto-dst { 5432, 6379 } ip saddr 10.0.0.5 accept"]


def test_the_health_check_s_client_gets_in_where_not_everybody_may() -> None:
    found = rules(docker_host_firewall_web_sources=["198.51.100.0/24"])
    web = "meta l4proto tcp ct original proto-dst { 80, 443 } ip saddr"
    # Nobody else comes in with that address: not by the interface of another.
    look = f'iifname "{stack_network.INTERFACE}*" {web} {stack_network.OUTSIDE} accept'
    assert found == [f"{web} 198.51.100.0/24 accept", look]
    assert str(stack_network.OUTSIDE) not in " ".join(rules(docker_host_firewall_web_sources=["0.0.0.0/0"]))
    assert rules(docker_host_firewall_web_sources=[], docker_host_firewall_web_ports=[]) == []


def test_forwarding_is_a_kernel_setting_that_others_do_not_take_away() -> None:
    settings = evaluate(ROLE, "__docker_host_sysctls", docker_host_sysctls={"vm.swappiness": 1})
    assert settings == {"net.ipv4.ip_forward": 1, "vm.swappiness": 1}


def role_tasks(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ROOT / "roles" / ROLE / "tasks" / name).read_text())
    return found


def files(**variables: Any) -> dict[str, str]:
    """Return the files that the role writes."""
    place = str(ROOT / "roles" / ROLE)
    known = {"__docker_host_preflight": host(missing_files=[]), "role_path": place, "ansible_search_path": [place]}
    written: dict[str, str] = evaluate(ROLE, "__docker_host_files", **(known | variables))
    return written


def test_services_that_are_not_there_yet_have_an_empty_definition() -> None:
    missing = host(missing_files=["/opt/tradingbot/redis/compose.yaml"])
    written = files(__docker_host_preflight=missing, docker_host_firewall_enabled=False)
    assert written["/opt/tradingbot/redis/compose.yaml"] == "services: {}\n"
    assert "/opt/tradingbot/nginx/compose.yaml" not in written
    assert not [name for name in written if "firewall" in name]


def test_the_project_lies_where_it_is_wanted() -> None:
    elsewhere = {"docker_host_project_dir": "/srv/stack"}
    written = [name for name in files(**elsewhere) if name.startswith("/")]
    assert written == ["/srv/stack/compose.yaml", "/srv/stack/.env"]
    folders = {folder["path"]: folder.get("mode") for folder in evaluate(ROLE, "__docker_host_folders", **elsewhere)}
    assert folders["/srv/stack/secrets"] == "0700"
    assert "/srv/stack" in folders


@pytest.mark.parametrize(
    ("facts", "differs"),
    [
        ({}, False),
        ({"unset_sysctls": {"net.ipv4.ip_forward": 1}}, True),
        ({"docker": {"enabled": False}}, True),
        ({"docker": {"options_pending": True}}, True),
        ({"docker": {"options": {}}}, True),
    ],
)
def test_the_engine_is_left_alone_when_nothing_differs(facts: dict[str, Any], differs: bool) -> None:
    options = evaluate(ROLE, "__docker_host_daemon_options")
    docker = {"running": True, "enabled": True, "options": options, "options_pending": False}
    found = {"unset_sysctls": {}} | facts | {"docker": docker | facts.get("docker", {})}
    assert evaluate(ROLE, "__docker_host_engine_differs", __docker_host_preflight=host(**found)) is differs


def test_a_run_that_is_cut_off_leaves_somebody_who_loads_rules_again() -> None:
    steps = [next(str(task[key]) for key in task if "_tasks" in key) for task in role_tasks("main.yml")]
    # The firewall's new unit no longer follows those of others; the units that load it again call the command.
    assert steps.index("files.yml") < steps.index("firewall.yml")
    written = [name.removeprefix("etc/systemd/system/") for name in files()]
    order = ["usr/local/bin/tradingbot", "tradingbot-rules.service", "tradingbot-firewall.service"]
    assert [name for name in written if name in order] == order
    assert "nftables.service.d/tradingbot.conf" in written
    # What is repaired needs the containers' folders and the firewall.
    assert steps[-1] == "network.yml"


@pytest.mark.parametrize(
    ("sentences", "left"),
    [
        (["firewall: the table is not loaded"], True),
        (["Docker's rules: they are gone for port 443 of nginx"], True),
        (["forwarding: net.ipv4.ip_forward is 0, so the host passes no packet on"], True),
        (["forwarding: net.ipv4.conf.eth0.forwarding is 0", "forwarding: net.ipv6.conf.all.forwarding is 0"], False),
        (["look from outside: whether clients get in is unknown", "look at firewall: x", "clients: x"], False),
        ([], False),
    ],
)
def test_only_what_the_role_mends_stops_it(sentences: list[str], left: bool) -> None:
    (task,) = [task for task in role_tasks("network.yml") if "ansible.builtin.fail" in task]
    known = task["vars"] | {"__docker_host_health": {"sentences": [*sentences, "redis: it is exited"]}}
    known = {name: trust_as_template(value) if isinstance(value, str) else value for name, value in known.items()}
    assert evaluate(ROLE, task["when"], **known) == left
    text = task["ansible.builtin.fail"]["msg"].strip("{} ")
    assert evaluate(ROLE, text, **known) == ("\n".join(sentences) if left else "")


def test_a_health_check_that_was_not_needed_stops_nothing() -> None:
    (task,) = [task for task in role_tasks("network.yml") if "ansible.builtin.fail" in task]
    known = {name: trust_as_template(value) for name, value in task["vars"].items()}
    assert evaluate(ROLE, task["when"], **known, __docker_host_health={"skipped": True}) is False
    assert not [task for task in role_tasks("network.yml") if "failed_when" in task]


def test_the_key_of_the_repository_is_read_without_a_keyring_of_root_s() -> None:
    (command,) = [
        task["ansible.builtin.command"]["argv"]
        for task in role_tasks("repository.yml")
        if "ansible.builtin.command" in task
    ]
    # Otherwise it makes ~/.gnupg.
    assert {"--homedir", "--no-keyring"} <= set(command)


@pytest.mark.parametrize(
    ("unit", "commands"),
    [
        ("nftables", {"ExecStartPost", "ExecReload", "ExecStopPost"}),
        ("netfilter-persistent", {"ExecStartPost", "ExecStopPost"}),  # it has no reload of its own
    ],
)
def test_units_that_flush_rules_have_them_loaded_again(unit: str, commands: set[str]) -> None:
    text = files()[f"etc/systemd/system/{unit}.service.d/tradingbot.conf"]
    lines = [line.partition("=") for line in text.splitlines() if line.startswith("Exec")]
    assert {name for name, _, _ in lines} == commands
    # A start that waited for another unit's would wait for ever: that one comes after it.
    assert {does for _, _, does in lines} == {"-/usr/bin/systemctl --no-block restart tradingbot-rules.service"}
    assert f"{unit}.service" in stack_network.RULE_LOADERS


def test_firewall_counts_the_web_connections_of_each_sender() -> None:
    known = {
        "__docker_host_preflight": host(),
        "docker_host_firewall_web_connections_exempt": ["192.0.2.0/24", "2001:db8::/32"],
    }
    text = render(ROLE, "etc/tradingbot/firewall.nft.j2", docker_host_firewall_web_connections=7, **known)
    chain = text.split("chain web_connections {\n")[1].split("    }\n")[0]
    assert [line.strip() for line in chain.splitlines()] == [
        "ip saddr 192.0.2.0/24 return",
        "ip6 saddr 2001:db8::/32 return",
        "add @web_senders { ip saddr ct count over 7 } drop",
        "add @web_senders6 { ip6 saddr and ffff:ffff:ffff:ffff:: ct count over 7 } drop",
    ]
    counted = "ct status dnat meta l4proto tcp ct original proto-dst { 80, 443 } jump web_connections"
    assert text.index("ct state established,related accept", text.index("chain forward")) < text.index(counted)
    assert text.index(counted) < text.index("ct status dnat jump allowed")
    off = render(ROLE, "etc/tradingbot/firewall.nft.j2", docker_host_firewall_web_connections=0, **known)
    assert "web_connections" not in off
    none = render(ROLE, "etc/tradingbot/firewall.nft.j2", docker_host_firewall_web_ports=[], **known)
    assert "jump web_connections" not in none


def test_containers_of_the_stack_do_not_reach_link_local_addresses_but_for_names() -> None:
    known = {"__docker_host_preflight": host(), "docker_host_network_bridge": "br-other"}
    text = render(ROLE, "etc/tradingbot/firewall.nft.j2", **known)
    dropped = 'iifname "br-other" ip daddr 169.254.0.0/16 meta l4proto { tcp, udp } th dport != 53 drop'
    assert text.index(dropped) < text.index('iifname "br-*" accept')


def test_firewall_is_one_transaction_that_drops_by_itself() -> None:
    text = render(ROLE, "etc/tradingbot/firewall.nft.j2", __docker_host_preflight=host())
    commands = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert commands[:3] == ["table inet tradingbot", "delete table inet tradingbot", "table inet tradingbot {"]
    assert "hook input priority filter - 5; policy drop;" in text
    assert text.index("ct status dnat jump allowed") < text.index("ct status dnat drop")


def test_compose_includes_every_service() -> None:
    project = yaml.safe_load(render(ROLE, "opt/tradingbot/compose.yaml.j2", docker_host_services=["redis", "nginx"]))
    assert project == {"name": "tradingbot", "include": ["redis/compose.yaml", "nginx/compose.yaml"]}


def test_a_host_without_services_still_has_a_project() -> None:
    project = yaml.safe_load(render(ROLE, "opt/tradingbot/compose.yaml.j2", docker_host_services=[]))
    assert project == {"name": "tradingbot", "services": {}}


def test_fragments() -> None:
    found = evaluate(ROLE, "__docker_host_fragments", docker_host_services=["redis"], docker_host_project_dir="/srv/x")
    assert found == ["/srv/x/redis/compose.yaml"]


@pytest.mark.parametrize("names", [["0" * 40], ["0" * 40, "A" * 40]])
def test_all_keys_of_the_repository_are_found_and_no_subkey(names: list[str]) -> None:
    said = "".join(
        f"pub:-:4096:1:{name[-16:]}:1487788586:::-:::scSC::::::23::0:\nfpr:::::::::{name}:\n"
        f"uid:-::::1487792064::::Somebody:\n"
        f"sub:-:4096:1:7EA0A9C3F273FCD8:1487788586::::::s::::::23:\nfpr:::::::::{'F' * 40}:\n"
        for name in names
    )
    assert evaluate(ROLE, "__docker_host_key_found", __docker_host_key_shown={"stdout": said}) == names


@pytest.mark.parametrize("folder", ["/opt/tradingbot", "/srv/my-bot_2.0@x+y/", "/srv//bot", "/opt/händler", "/.bots/a"])
def test_folders_that_work_everywhere(folder: str) -> None:
    assert problems(ROLE, __docker_host_preflight=host(), docker_host_project_dir=folder) == []


@pytest.mark.parametrize(
    "folder",
    [
        "/opt/trading bot",
        "/opt/bot\n",
        "opt/bot",
        "./bot",
        "~/bot",
        "",
        "/",
        "//",
        "/opt/../bot",
        "/opt/.",
        "/a:b",
        "/a$b",
        "/a'b",
    ],
)
def test_folders_that_mean_something_else_somewhere(folder: str) -> None:
    (found,) = problems(ROLE, __docker_host_preflight=host(), docker_host_project_dir=folder)
    assert found["what"] == "docker_host_project_dir"
    assert f"`{folder}` is not a full path" in found["why"]
    assert "docker_host_project_dir: /opt/tradingbot" in found["fix"]


@pytest.mark.parametrize(
    ("variables", "facts", "what"),
    [
        ({"docker_host_project_name": "mybot"}, {}, []),
        ({"docker_host_project_name": "mybot"}, {"project": "mybot"}, []),
        ({"docker_host_project_name": "mybot"}, {"project": "tradingbot"}, ["docker_host_project_name"]),
        ({}, {"project": "mybot"}, ["docker_host_project_name"]),
        ({"docker_host_project_name": "My Bot"}, {}, ["docker_host_project_name"]),
        ({"docker_host_network_name": "tradingbot-network"}, {}, ["docker_host_network_name"]),
        ({"docker_host_network_bridge": "br-my.bot_0"}, {}, []),
        ({"docker_host_network_bridge": "bot0"}, {}, ["docker_host_network_bridge"]),
        ({"docker_host_network_bridge": "br-0123456789abc"}, {}, ["docker_host_network_bridge"]),
    ],
)
def test_names_of_the_project_and_its_network(
    variables: dict[str, Any], facts: dict[str, Any], what: list[str]
) -> None:
    found = problems(ROLE, __docker_host_preflight=host(**facts), **variables)
    assert [problem["what"] for problem in found] == what


def test_another_name_than_that_of_the_stack_in_place_is_refused_for_the_data() -> None:
    (found,) = problems(ROLE, __docker_host_preflight=host(project="mybot"))
    assert "is the project mybot; as tradingbot it would begin with an empty database" in found["why"]
    assert found["fix"] == "set `docker_host_project_name: mybot`"
