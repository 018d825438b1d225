#!/bin/sh
# Runs in the container: reload nginx unless it runs the configuration on disk, and wait until it does.
set -eu

conf=/etc/tradingbot/nginx/nginx.conf
wanted=$(sed -n 's/^# configuration \([0-9a-f]*\)$/\1/p' "$conf")

running() {
    curl --silent --show-error --fail --max-time 5 http://127.0.0.1:8081/configuration
}

if [ "$(running)" = "$wanted" ]; then
    echo "current: $wanted"
    exit 0
fi

nginx -q -c "$conf" -s reload
tries=40
until [ "$(running)" = "$wanted" ]; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
        echo "nginx still runs $(running) and not $wanted: its log says why" >&2
        exit 1
    fi
    sleep 0.25
done
echo "reloaded: $wanted"
