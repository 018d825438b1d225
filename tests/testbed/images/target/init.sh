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

# systemd 258 and newer boot on cgroup v2 only, and where the machine has cgroup v1 its controllers are there and nowhere
# else. Then init gets a view of its own with the (bare) v2 tree; the engine keeps to the mounts as they are, limits included.
systemd=$(systemctl --version | awk 'NR == 1 { print $2 }')
if [ "$(stat --file-system --format=%T /sys/fs/cgroup)" != cgroup2fs ] && [ "${systemd%%[!0-9]*}" -ge 258 ]; then
  # Held by a process: the kernel does not always let the name of a mount namespace be mounted.
  sleep infinity &
  for unit in containerd docker; do
    case $unit in
      containerd) command='containerd' ;;
      docker) command='dockerd -H fd:// --containerd=/run/containerd/containerd.sock' ;;
    esac
    mkdir -p "/run/systemd/system/$unit.service.d"
    printf '[Service]\nExecStart=\nExecStart=nsenter --mount=/proc/%s/ns/mnt %s\n' "$!" "$command" \
      >"/run/systemd/system/$unit.service.d/cgroup.conf"
  done
  exec unshare --mount --propagation unchanged sh -euc '
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    exec /sbin/init'
fi

# systemd 256 and 257 boot on cgroup v1 only with this word; to others it means nothing.
exec /sbin/init SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1
