# Everyday commands; `just` lists them. Each is also usable without just: they are one or two lines.

# List the recipes.
default:
    @just --list

# All that must hold before a commit; changes no file.
verify: && deny
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo test --workspace --locked
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
    tests/compose/metric_names.py

# Format, and apply what clippy can apply.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# The tests, or those whose name contains FILTER.
test *FILTER:
    cargo test --workspace --locked {{ FILTER }}

# Simulated clusters under faults: SEEDS is A..B; see docs/reliability.md.
sim SEEDS="0..100" *ARGUMENTS:
    cargo run --release --locked -p simulation -- --seeds {{ SEEDS }} {{ ARGUMENTS }}

# Defects planted one at a time, each to be found by the simulation.
sim-planted *ARGUMENTS:
    cargo run --release --locked -p simulation --features planted-bugs -- --planted {{ ARGUMENTS }}

# The micro benchmarks, or those whose name contains FILTER; with --test each runs once, untimed.
bench *FILTER:
    cargo bench --workspace --locked --bench '*' -- {{ FILTER }}

# Licenses, advisories and sources of the dependencies (cargo install cargo-deny).
deny:
    cargo deny --locked check

# Three nodes on this machine, with a first message.
dev *ARGUMENTS:
    cargo run --release --locked -- dev {{ ARGUMENTS }}

# Kill a leader while messages are sent, and show what clients saw of it.
demo *ARGUMENTS:
    cargo run --release --locked -- demo failover {{ ARGUMENTS }}

# The same three nodes as containers, with Prometheus.
up:
    docker compose up --build --detach

# Remove the containers; their messages stay.
down:
    docker compose down

# What a user of the containers does, checked; installs and builds what it needs.
compose-test:
    tests/compose/failover.sh
