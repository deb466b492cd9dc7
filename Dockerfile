# Built in one stage, run in another that holds the program and nothing to build with.
#
#   docker build -t omendb .
#   docker run -p 127.0.0.1:50051:50051 -v omendb-data:/data -e OMENDB_INSECURE=true omendb
#
# There are no users and passwords yet, so listening beyond loopback, as a container must, needs to be asked for:
# without OMENDB_INSECURE the server refuses to start and says so.
FROM rust:1.94-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin omendb
RUN .ci/notices.py --texts > /THIRD-PARTY-LICENSES

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --home-dir /data omendb && install -d -o omendb -g omendb /data
COPY --from=build /src/target/release/omendb /usr/local/bin/omendb
COPY --from=build /src/LICENSE /src/NOTICE.md /THIRD-PARTY-LICENSES /usr/share/doc/omendb/
USER omendb
ENV OMENDB_DATA_DIR=/data OMENDB_LISTEN=0.0.0.0:50051
VOLUME /data
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["omendb", "health"]
ENTRYPOINT ["omendb"]
CMD ["serve"]
