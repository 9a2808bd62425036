# The demo: the proxy with the simulated cloud and a real PostgreSQL, in one container, on its own loopback.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked -p pgpassport

FROM debian:bookworm-slim
RUN apt-get update \
    && mkdir -p /etc/postgresql-common/createcluster.d \
    && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.d/no-cluster.conf \
    && apt-get install -y --no-install-recommends ca-certificates postgresql postgresql-client \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 demo
COPY --from=build /src/target/debug/pgpassport /usr/local/bin/pgpassport
USER demo
WORKDIR /home/demo
ENTRYPOINT ["pgpassport", "demo"]
