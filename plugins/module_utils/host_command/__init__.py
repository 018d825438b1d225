# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The command `tradingbot` on a host. Nothing but Python's own library; the role docker_host installs it."""
