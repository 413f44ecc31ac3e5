# Gantry's image: one binary on Debian slim, run by a user that is not root.
#
#   docker build -t gantry:0.1.0 .
#   docker run --rm gantry:0.1.0 --help
#
# Works with BuildKit and with the classic builder, so it uses no cache mounts: the dependencies have a layer of
# their own instead, which is rebuilt only when a manifest or Cargo.lock changes.

FROM rust:1.95-bookworm AS build
WORKDIR /build
# Function names stay for backtraces, the far larger debug information goes.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo

COPY Cargo.toml Cargo.lock ./
COPY protocol/Cargo.toml protocol/Cargo.toml
COPY storage/Cargo.toml storage/Cargo.toml
COPY raft/Cargo.toml raft/Cargo.toml
COPY tests/chaos/Cargo.toml tests/chaos/Cargo.toml
COPY tests/checker/Cargo.toml tests/checker/Cargo.toml
COPY tests/fuzz/Cargo.toml tests/fuzz/Cargo.toml
COPY tests/simulation/Cargo.toml tests/simulation/Cargo.toml
# Every member of the workspace has to be there, with every target that its manifest names, though empty.
RUN for file in src/lib.rs protocol/src/lib.rs protocol/benches/codec.rs storage/src/lib.rs \
        storage/benches/storage/main.rs raft/src/lib.rs tests/chaos/src/lib.rs tests/checker/src/lib.rs \
        tests/checker/src/main.rs tests/checker/benches/checker.rs tests/fuzz/src/lib.rs tests/simulation/src/lib.rs; \
    do mkdir -p "$(dirname "$file")" && touch "$file"; done \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked --bin gantry \
    && rm -r src protocol/src protocol/benches storage/src storage/benches raft/src tests/*/src tests/checker/benches

COPY . .
# Cargo compares times: the real sources may be older than the empty ones that were built above.
RUN find src protocol/src storage/src raft/src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --bin gantry

FROM debian:bookworm-slim
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="gantry" \
      org.opencontainers.image.description="A message broker for Apache RocketMQ clients whose CommitLog is a Raft log" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"

RUN groupadd --system --gid 10001 gantry \
    && useradd --system --uid 10001 --gid gantry --no-create-home --home-dir /var/lib/gantry \
        --shell /usr/sbin/nologin gantry \
    && install -d -o gantry -g gantry -m 0750 /var/lib/gantry
COPY LICENSE /usr/share/doc/gantry/LICENSE
COPY --from=build /build/target/release/gantry /usr/local/bin/gantry

# A new named volume takes over the owner of this directory.
VOLUME /var/lib/gantry
WORKDIR /var/lib/gantry
USER gantry

# Name server, the remoting ports of three groups and their old VIP channels (port - 2), peers, HTTP.
EXPOSE 9876 10909 10911 10919 10921 10929 10931 10912 5557

# The server drains after SIGTERM: give it as long as `stop_grace_period` in docker-compose.yml does.
STOPSIGNAL SIGTERM
ENTRYPOINT ["gantry"]
CMD ["server", "--config", "/etc/gantry/gantry.toml"]
