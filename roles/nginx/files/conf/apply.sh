#!/bin/sh
# Runs in the container: reload nginx unless it runs what is on disk, and wait until it does.
# Prints `current: …` or `reloaded: …`. What nginx does not accept is not loaded, and it goes on with what it has.
set -eu

conf=/etc/tradingbot/nginx/nginx.conf
live=/etc/tradingbot/live

refuse() {
    echo "$1" >&2
    exit 1
}

# The value in the only line, but for comments, `map "" $<name> { default <value>; }` of a file in live/.
value() {
    # A file that is missing is told by its empty value, like one with other lines.
    found=$(sed -e '/^#/d' -e "s/^map \"\" \\\$$2 { default \([a-z0-9-]*\); }\$/=\1/" "$live/$1" 2>/dev/null) || true
    case ${found#=} in
        "" | "$found" | *[!a-z0-9-]*) refuse "live/$1 must have exactly one line: map \"\" \$$2 { default $3; }" ;;
    esac
    echo "${found#=}"
}

# What is on disk, in the words of /configuration.
wanted() {
    mark=$(sed -n 's/^# configuration \([0-9a-f]*\)$/\1/p' "$conf")
    backend=$(value upstream.conf active_backend backend-blue)
    maintenance=$(value maintenance.conf maintenance 0)
    grep -q "^    upstream $backend {\$" "$conf" ||
        refuse "live/upstream.conf names $backend, and nginx.conf has no such upstream: write one that it has"
    case $maintenance in
        0 | 1) ;;
        *) refuse "live/maintenance.conf says $maintenance: write 0 or 1" ;;
    esac
    echo "$mark $backend $maintenance"
}

running() {
    # An nginx that does not answer runs nothing that is wanted: the caller compares, and says so.
    curl --silent --show-error --fail --max-time 5 http://127.0.0.1:8081/configuration || true
}

# Workers that take new connections, each number between blanks.
workers() {
    for process in /proc/[0-9]*; do
        # A process may end while it is looked at.
        title=$(cat "$process/cmdline" 2>/dev/null | tr '\0' ' ') || true
        case $title in
            "nginx: worker process is shutting down"*) ;;
            "nginx: worker process"*) printf ' %s ' "${process#/proc/}" ;;
        esac
    done
}

# Whether one of the workers from before still takes new connections.
old_ones_take_connections() {
    now=$(workers)
    for worker in $before; do
        case $now in
            *" $worker "*) return 0 ;;
        esac
    done
    return 1
}

goal=$(wanted)
if [ "$(running)" = "$goal" ]; then
    echo "current: $goal"
    exit 0
fi

nginx -t -q -c "$conf" || refuse "nginx does not accept what is on disk, and goes on with what it runs: site.yml --tags nginx writes it again"
before=$(workers)
nginx -q -c "$conf" -s reload
tries=60
# Read anew each time: somebody else may have changed live/ meanwhile, whose reload then counts for both.
until [ "$(running)" = "$goal" ] && ! old_ones_take_connections; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || refuse "nginx still runs '$(running)' and not '$goal': its log says why"
    sleep 0.25
    goal=$(wanted)
done
echo "reloaded: $goal"
