# The image of the node daemon:
#
#   docker build --build-arg VERSION="$(git describe --tags --always)" -t raven-agent .
#
# The binary is static and needs nothing around it. The base is not empty because two programs must speak for the host:
# iptables-legacy, where the host filters with it, and modprobe, where nf_conntrack is a module that nobody has loaded
# (mount the host's /lib/modules). docs/design/image.md says more.

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath \
      -ldflags "-s -w -X github.com/ravencni/raven/pkg/version.version=${VERSION}" \
      -o /out/ ./cmd/raven-agent ./cmd/ravenctl

FROM debian:12-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends iptables kmod \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/raven-agent /out/ravenctl /usr/local/bin/
COPY LICENSE bpf/LICENSE-BSD-2-Clause bpf/LICENSE-GPL-2.0 /usr/share/doc/raven/
ENTRYPOINT ["/usr/local/bin/raven-agent"]
