#!/bin/sh
# Makes the container look like a machine of its own, then becomes its init.
set -eu

# Docker mounts these read-only; the engine inside sets sysctls and makes cgroups.
for mount in /proc/sys /sys/fs/cgroup /sys/fs/cgroup/*; do
  if mountpoint -q "$mount"; then
    mount -o remount,bind,rw "$mount"
  fi
done

# The outer engine's own name server is on loopback, which containers inside this host cannot reach.
if [ -n "${TESTBED_NAMESERVERS:-}" ]; then
  : >/etc/resolv.conf
  for server in $TESTBED_NAMESERVERS; do
    echo "nameserver $server" >>/etc/resolv.conf
  done
fi

printf '%s\n' "$TESTBED_AUTHORIZED_KEY" >/home/deploy/.ssh/authorized_keys
chown deploy:deploy /home/deploy/.ssh/authorized_keys
chmod 0600 /home/deploy/.ssh/authorized_keys
ssh-keygen -A >/dev/null

# systemd 257 and newer boot on cgroup v1 only with this word; elsewhere it means nothing.
exec /sbin/init SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1
