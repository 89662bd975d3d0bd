# anyam/proxy with Docker: the contents of `make images`, laid out by the same script.
#   docker build -f deploy/images/proxy.Dockerfile -t anyam/proxy:0.1.0 .
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake python3 ca-certificates
WORKDIR /src
COPY . .
RUN cargo build --locked --release -p anyam-proxy
ARG TARGETARCH
RUN python3 deploy/images/images.py rootfs proxy /rootfs --binary ${TARGETARCH}=target/release/anyam-proxy

FROM scratch
COPY --from=build /rootfs/ /
LABEL org.opencontainers.image.title="anyam-proxy" \
      org.opencontainers.image.description="The sidecar of the Anyam service mesh, and the command that sets up a pod's netfilter rules" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/anyam-mesh/anyam"
ENV PATH=/usr/local/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 1337:1337
WORKDIR /
ENTRYPOINT ["/usr/local/bin/anyam-proxy"]
