#!/bin/sh
# Build the image with buildah, run it with podman the way a careful cluster would, and send it a real request.
#
#   tests/image/build_and_run.sh
#
# Needs buildah, podman and runc, and a Python with flyweight[server] and onnx ($PYTHON, python3 when not said).
# Exit codes: 0 all well, 77 a tool is missing, anything else a failure.
#
#   BASE=debian    make the base image from Debian packages with mmdebstrap, instead of pulling it
#   BUILD_FLAGS    more flags for `buildah build`, for example a proxy's certificates: -v /etc/ssl/certs:/etc/ssl/certs:ro
#   RUN_FLAGS      more flags for `podman run`
#   RUNTIME        what --runtime says; process, which asks more of the container, when not said
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
image=localhost/flyweight:test
name=flyweight-test-$$
work=$(mktemp -d)

for tool in buildah podman runc ${BASE:+mmdebstrap}; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: $tool is not installed" >&2
        exit 77
    fi
done

engine() { podman --runtime runc --cgroup-manager=cgroupfs "$@"; }

clean_up() {
    engine rm --force --time 1 "$name" >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

base=$(sed -n 's/^FROM \([^ ]*\)$/\1/p' "$root/Dockerfile")
pull=--pull
if [ "${BASE:-}" = debian ]; then
    pull=--pull-never
    if ! engine image exists "docker.io/library/$base"; then
        mmdebstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
            bookworm "$work/base.tar"
        engine import --quiet "$work/base.tar" "docker.io/library/$base"
    fi
fi

# The docker format keeps HEALTHCHECK.
# shellcheck disable=SC2086
buildah build --isolation chroot --network host --format docker "$pull" ${BUILD_FLAGS:-} --tag "$image" "$root"

"$python" "$root/tests/image/tiny_repository.py" "$work/repository"
chmod -R a+rX "$work"

# Read-only, without capabilities, as the numeric user that the image names.
# shellcheck disable=SC2086
engine run --detach --name "$name" --network host --read-only --tmpfs /tmp --cap-drop ALL \
    --security-opt no-new-privileges --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 \
    --volume "$work/repository:/models:ro" ${RUN_FLAGS:-} "$image" \
    serve /models --host 127.0.0.1 --port 8001 --metrics-host 127.0.0.1 --metrics-port 8002 --drain-seconds 5 \
    --runtime "${RUNTIME:-process}" \
    >/dev/null

"$python" "$root/tests/image/ask.py" 127.0.0.1:8001 http://127.0.0.1:8002/metrics || {
    engine logs "$name" >&2
    exit 1
}

# shellcheck disable=SC2016
engine exec "$name" sh -c 'test "$(id -u)" != 0 && ! touch /opt/flyweight/x 2>/dev/null'
engine exec "$name" python3 -c 'import importlib.util as u; assert not [m for m in ("torch", "onnx", "pip") if u.find_spec(m)]'
# The image's own health check, run once by hand: `podman healthcheck` needs systemd.
engine inspect --format '{{range (slice .Config.Healthcheck.Test 1)}}{{.}}{{"\x00"}}{{end}}' "$name" |
    sed -z '$d' | xargs -0 podman --runtime runc --cgroup-manager=cgroupfs exec "$name"

engine stop --time 30 "$name" >/dev/null
code=$(engine inspect --format '{{.State.ExitCode}}' "$name")
if [ "$code" != 0 ]; then
    engine logs "$name" >&2
    echo "failed: the server left with code $code after SIGTERM" >&2
    exit 1
fi
echo "ok: $(engine image inspect --format '{{.Size}}' "$image") bytes, answered, drained, left with 0"
