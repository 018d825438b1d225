"""Transcripts show what a person sees, and nothing of the machine that they were made on."""

from __future__ import annotations

from tests.tools import transcript


def test_a_text_is_free_of_this_machine() -> None:
    printed = (
        "\x1b[0;32mok: [bench]\x1b[0m\n\n\n\n"
        "TASK [tradingbot.stack.backend : Pull] **************************\n"
        f"Origin: {transcript.ROOT}/playbooks/deploy.yml:3\n"
        "-i /somewhere/inventory\n"
        "held by me@vm since 2026-11-26 10:00:00 UTC\n"
        "bench                      : ok=3   changed=1\n"
        "the workbench stays, bench-like too\n"
    )
    assert transcript.cleaned(printed, "/somewhere/inventory", "bench") == (
        "ok: [server1]\n\n"
        "TASK [tradingbot.stack.backend : Pull] ***\n"
        "Origin: playbooks/deploy.yml:3\n"
        "-i inventories/prod\n"
        "held by deploy@controller since 2026-01-01T12:00:00 UTC\n"
        "server1 : ok=3   changed=1\n"
        "the workbench stays, bench-like too\n"
    )


def test_commands_are_what_a_person_types() -> None:
    typed = [" ".join(transcript.command(scene, transcript.SHOWN_INVENTORY)) for scene in transcript.scenes()]
    assert typed[0] == "ansible-playbook playbooks/deploy.yml -i inventories/prod -e backend_version=0.3.0"
    assert all("registry:5000" not in line for line in typed)
    assert [scene.code for scene in transcript.scenes()] == [0, 2, 0, 0]
