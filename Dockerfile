# docker build -t gatekeeper:0.1.0 .
# docker run --rm -e GATEKEEPER_ADMIN_TOKEN=choose-a-long-one -p 127.0.0.1:8080:8080 -p 127.0.0.1:9090:9090 gatekeeper:0.1.0
# is the demo, its dashboard at http://127.0.0.1:9090/. With a configuration of your own:
# docker run --stop-timeout 310 -p 127.0.0.1:8080:8080 -v ./gateway:/etc/gatekeeper:ro -v gatekeeper:/var/lib/gatekeeper gatekeeper:0.1.0
# (gateway/ holds gatekeeper.yaml: of a file alone, most editors would replace what is not mounted. 310 s are `server.grace` and a little.)
FROM rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS build
RUN apt-get update && apt-get install --yes --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package gatekeeper --bin gatekeeper && strip target/release/gatekeeper

FROM debian:12-slim@sha256:7b140f374b289a7c2befc338f42ebe6441b7ea838a042bbd5acbfca6ec875818
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/gatekeeper --shell /usr/sbin/nologin gatekeeper \
    && install -d -m 0700 -o gatekeeper -g gatekeeper /var/lib/gatekeeper
COPY --from=build /src/target/release/gatekeeper /usr/bin/gatekeeper
# The demo: mount your own directory over it.
COPY conf/image/gatekeeper.yaml /etc/gatekeeper/gatekeeper.yaml
COPY LICENSE /usr/share/doc/gatekeeper/LICENSE
USER 10001
WORKDIR /var/lib/gatekeeper
VOLUME /var/lib/gatekeeper
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["gatekeeper", "health", "-c", "/etc/gatekeeper/gatekeeper.yaml"]
ENTRYPOINT ["gatekeeper"]
CMD ["run", "-c", "/etc/gatekeeper/gatekeeper.yaml"]
