#!/usr/bin/env bash
# Stock-client tests. Installs what it needs into tests/clients/.venv and tests/clients/rust/target.
#
#   tests/clients/run.sh                  the C++ client, then the Rust client
#   tests/clients/run.sh cpp [PYTEST..]   only the C++ client, with arguments for pytest
#   tests/clients/run.sh rust [TEST..]    only the Rust client, with arguments for the test program
#   tests/clients/run.sh java [PART..]    only the Java client, with names of parts (needs a JDK and Maven)
#   tests/clients/run.sh failover [..]    the failover measurement (see failover.py --help)
#
# GANTRY_BIN names the broker; without it, this builds target/debug/gantry first.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
venv=$here/.venv
export PYTHONDONTWRITEBYTECODE=1

python_311() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "python 3.11 or newer is needed; set PYTHON to it" >&2
    return 1
}

prepare_python() {
    local stamp=$venv/requirements.txt
    if ! cmp -s "$here/requirements.txt" "$stamp"; then
        rm -rf "$venv"
        "$(python_311)" -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
        cp "$here/requirements.txt" "$stamp"
    fi
}

prepare_broker() {
    if [[ -z ${GANTRY_BIN:-} ]]; then
        cargo build --manifest-path "$repository/Cargo.toml" --bin gantry
        export GANTRY_BIN=${CARGO_TARGET_DIR:-$repository/target}/debug/gantry
    fi
}

prepare_rust() {
    cargo build --quiet --manifest-path "$here/rust/Cargo.toml" --tests --bins
}

cpp_tests() {
    (cd "$here" && "$venv/bin/python" cluster.py -- "$venv/bin/python" -m pytest -q -p no:cacheprovider "$@")
}

rust_tests() {
    prepare_rust
    "$venv/bin/python" "$here/cluster.py" -- \
        cargo test --quiet --manifest-path "$here/rust/Cargo.toml" --no-fail-fast -- --test-threads 4 "$@"
}

java_class_path() {
    local class_path=$venv/java-class-path
    if [[ ! -s $class_path ]]; then
        mvn --quiet --file "$here/java/pom.xml" dependency:build-classpath -Dmdep.outputFile="$class_path"
    fi
    cat "$class_path"
}

java_tests() {
    local class_path
    class_path=${ROCKETMQ_CLASSPATH:-$(java_class_path)}
    "$venv/bin/python" "$here/cluster.py" -- bash -c \
        'java -cp "$0" "$1" "$GANTRY_NAMESRV" "${@:2}"' "$class_path" "$here/java/StockClient.java" "$@"
}

what=${1:-all}
shift || true
prepare_python
prepare_broker
case $what in
    all)
        cpp_tests
        rust_tests
        ;;
    cpp) cpp_tests "$@" ;;
    rust) rust_tests "$@" ;;
    java) java_tests "$@" ;;
    failover)
        prepare_rust
        (cd "$here" && exec "$venv/bin/python" failover.py "$@")
        ;;
    *)
        sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
