#!/bin/sh
# The part of the official entrypoint's behaviour that the roles rely on (tests/testbed/README.md).
set -eu
case ${1:-} in
  -* | *.conf) set -- redis-server "$@" ;;
esac
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  chown -R redis:redis /data
  exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi
umask 0077
exec "$@"
