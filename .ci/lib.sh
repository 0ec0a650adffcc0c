# What the steps share. Sourced with `set -euo pipefail` on; moves to the root of the project.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
target=${CARGO_TARGET_DIR:-target}

# Processes that this script started, ended when it ends, whatever the reason.
started=()
trap end_started EXIT

end_started() {
    local pid
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start LOG COMMAND…: runs it in the background; its id is in $pid.
start() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 &
    pid=$!
    started+=("$pid")
}

# wait_ready BASE_URL LOG: until $pid answers 200 at /readyz, 60 s at most.
wait_ready() {
    local tries
    for tries in $(seq 300); do
        if curl -fsS -o /dev/null "$1/readyz" 2>/dev/null; then
            return
        fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.2
    done
    cat "$2"
    echo "not ready at $1: the log is above" >&2
    return 1
}

# stop LOG STATUS: SIGTERM to $pid; it must end with that exit status within 60 s.
stop() {
    local tries status=0
    kill "$pid"
    for tries in $(seq 300); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.2
    done
    if kill -0 "$pid" 2>/dev/null; then
        tail -n 50 "$1"
        echo "does not end within 60 s of SIGTERM" >&2
        return 1
    fi
    wait "$pid" || status=$?
    if [ "$status" != "$2" ]; then
        tail -n 50 "$1"
        echo "ended with exit status $status, not $2: the log is above" >&2
        return 1
    fi
    echo "ended with exit status $status after SIGTERM"
}

# start_up LOG: everything in one process on a throw-away database; its address is in $url.
start_up() {
    local port
    port=$(free_port)
    url=http://127.0.0.1:$port
    start "$1" "$target/debug/taskmaster" up --ephemeral --port "$port"
    wait_ready "$url" "$1"
}
