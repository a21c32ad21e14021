# Raven's images, for those who have a container engine; `make image` makes the same ones without:
#
#   docker build --target raven-agent      --build-arg VERSION="$(git describe --tags --always)" -t ravencni/raven-agent .
#   docker build --target raven-controller --build-arg VERSION="$(git describe --tags --always)" -t ravencni/raven-controller .
#
# Both are built on nothing: the controller is one static program, and beside the agent lie only those Debian packages
# that it calls for, unpacked. docs/design/image.md says why.

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
ARG TARGETARCH
RUN VERSION="$VERSION" hack/image/build.sh --rootfs raven-agent "$TARGETARCH" /rootfs/agent \
 && VERSION="$VERSION" hack/image/build.sh --rootfs raven-controller "$TARGETARCH" /rootfs/controller

FROM scratch AS raven-controller
COPY --from=build /rootfs/controller /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/raven-controller"]

FROM scratch AS raven-agent
COPY --from=build /rootfs/agent /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENTRYPOINT ["/usr/local/bin/raven-agent"]
