# Raven's commands; `make` lists them. Targets install the Debian packages they lack (hack/install-deps.sh).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

# The tools of network administration lie where a user's PATH may not look.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/ravencni/raven/pkg/version.version=$(VERSION)
# More arguments for every `go test`, such as TESTFLAGS='-run TestX -v'.
TESTFLAGS ?=

# More arguments for test-kernels, such as KERNELSFLAGS='--kernel 6.1 --suite packets'.
KERNELSFLAGS ?=

as_root = @[[ $$(id -u) == 0 ]] || { echo "make $@ makes network namespaces and loads BPF programs: run it as root" >&2; exit 1; }

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## Build all binaries into bin/
	@hack/install-deps.sh build
	@echo "building $(VERSION) into bin/ (the first time some minutes: it fetches and compiles the Go modules)"
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/... ./test/lab/cmd/... ./test/kernels/cmd/... ./bench/cmd/...
	ln -sf ravenctl bin/kubectl-raven

.PHONY: generate generate-api generate-bpf generate-chart
generate: generate-api generate-chart generate-bpf ## Make deepcopy, CRDs, the chart's templates and BPF objects anew
generate-chart:
	go run ./hack/render --chart manifests/charts/raven-agent
generate-api:
	go tool controller-gen object crd:crdVersions=v1 paths=./pkg/apis/raven/... output:crd:dir=manifests/crds
	@# Said in so many words, so that applying it takes away another conversion that the CRD had before.
	sed -i 's/^spec:$$/spec:\n  conversion:\n    strategy: None\n    webhook: null/' manifests/crds/raven.openyurt.io_gateways.yaml
generate-bpf:
	@hack/install-deps.sh generate
	go generate ./bpf

.PHONY: verify-generated
verify-generated: ## Fail where a committed generated file is stale
	@hack/verify-generated.sh

.PHONY: lint
lint: ## Check format, go.mod, vet, staticcheck and the rules of the house
	@unformatted=$$(git ls-files -z --cached --others --exclude-standard --deduplicate -- '*.go' | xargs -0 gofmt -s -l); \
	[[ -z $$unformatted ]] || { echo "not formatted (gofmt -s -w):" $$unformatted >&2; exit 1; }
	go mod tidy -diff
	go vet ./...
	go tool staticcheck ./...
	@hack/house-rules.sh

.PHONY: test
test: test-beside test-proxy test-bpf test-lab ## Run all tests but those that have targets of their own below, with the race detector (root)

# The tests of the control plane wait most of the time; the unit tests run meanwhile, and give way to them.
.PHONY: test-beside
test-beside: cluster-binaries build
	@hack/install-deps.sh test
	printf '%s\0' '$(MAKE) test-controlplane' 'nice $(MAKE) test-unit' | xargs -0 -P 2 -n 1 bash -c

# The packages whose tests run against a real control plane. The regions take minutes, so they come first; reaching nodes by
# name is a target of its own.
by_name := ^TestNodesAreReachedByName
on_controlplane := ./test/cluster/regions ./test/cluster/... ./pkg/controller

.PHONY: test-unit
test-unit: ## Test the packages under pkg/, cmd/, hack/, bench/ and test/kernels/; parts that need the kernel skip without root
	@hack/install-deps.sh test
	go test -race $(TESTFLAGS) $$(go list ./pkg/... ./cmd/... ./hack/... ./bench/... ./test/kernels/... | grep -vxF "$$(go list $(on_controlplane) ./pkg/proxy/...)")

# How long each parser of the proxy is fed with made-up input.
FUZZTIME ?= 4s
.PHONY: test-proxy
test-proxy: ## Test the L7 proxy in namespaces, without a cluster, and fuzz its parsers for FUZZTIME each (root)
	$(as_root)
	@hack/install-deps.sh test
	go test -race $(TESTFLAGS) ./pkg/proxy/...
	go test -run '^$$' -fuzz '^FuzzHost$$' -fuzztime $(FUZZTIME) ./pkg/proxy/target
	go test -run '^$$' -fuzz '^FuzzConnect$$' -fuzztime $(FUZZTIME) ./pkg/proxy/target
	go test -run '^$$' -fuzz '^FuzzClientHello$$' -fuzztime $(FUZZTIME) ./pkg/proxy/hello

.PHONY: test-fleet
test-fleet: ## Kill, rotate and restart proxies, two a region, under load (root, half a minute)
	$(as_root)
	@hack/install-deps.sh test
	RAVEN_TEST_FLEET=1 go test -race -count=1 -v $(TESTFLAGS) -run '^(TestKillingAReplica|TestARotationAndARolling)' ./pkg/proxy

.PHONY: cluster-binaries
cluster-binaries: ## Build etcd, kube-apiserver, kube-controller-manager and kubectl for tests (once, about 15 minutes)
	@hack/install-deps.sh build
	@test/cluster/binaries/build.sh

# Each package has a control plane of its own, and waits most of the time.
.PHONY: test-apiserver
test-apiserver: cluster-binaries ## Test against a real API server: CRDs, rights, election, the agent's source (the first time 15 minutes more)
	go test -race -count=1 -p 4 -timeout 10m $(TESTFLAGS) $$(go list $(on_controlplane) | grep -v /regions)

.PHONY: test-controlplane
test-controlplane: cluster-binaries build ## The same, and the lab's regions run by it: failover, partition, outage (root, about 5 minutes)
	$(as_root)
	@hack/install-deps.sh test
	go test -race -count=1 -p 4 -timeout 20m -skip '$(by_name)' $(TESTFLAGS) $(on_controlplane)

.PHONY: test-byname
test-byname: cluster-binaries build ## Have a real API server reach nodes by name where three regions have the same addresses (root, minutes)
	$(as_root)
	@hack/install-deps.sh test
	go test -race -count=1 -v -timeout 20m $(TESTFLAGS) -run '$(by_name)' ./test/cluster/regions

.PHONY: test-bpf
test-bpf: ## Run every BPF program over its table of packets (root)
	$(as_root)
	@hack/install-deps.sh test
	@costs=$$(go test -count=1 -v -run '^TestCostOfEachProgramPerPacket$$' ./bpf) || { echo "$$costs"; exit 1; }; \
	grep -o 'raven_.*ns per packet.*' <<<"$$costs"
	go test -race -count=1 $(TESTFLAGS) ./bpf/...

.PHONY: test-lab
test-lab: build ## Test the real agents in the lab: regions in network namespaces (root)
	$(as_root)
	@hack/install-deps.sh test
	go test -race -count=1 -p 1 -timeout 20m $(TESTFLAGS) ./test/lab/... ./test/netns/...

.PHONY: test-kernels
test-kernels: build ## Boot Debian's 6.1 and 6.12 under QEMU, test there and print what passed (root; an hour or more)
	$(as_root)
	@hack/install-deps.sh test kernels ipsec
	CGO_ENABLED=0 go test -c -o bin/ ./bpf ./pkg/datapath/accel ./pkg/tunnel/wireguard ./pkg/tunnel/ipsec ./pkg/tunnel/conformance ./test/lab
	@bin/raven-kernels test $(KERNELSFLAGS)

.PHONY: test-ipsec
test-ipsec: ## Test the IPsec driver with strongSwan's charon between network namespaces (root, about 2 minutes)
	$(as_root)
	@hack/install-deps.sh test ipsec
	RAVEN_TEST_IPSEC=1 RAVEN_TEST_IPSEC_ESP=userspace go test -race -count=1 -timeout 10m $(TESTFLAGS) ./pkg/tunnel/ipsec/...
	RAVEN_TEST_DRIVERS=wireguard-userspace,ipsec-userspace go test -race -count=1 -timeout 10m $(TESTFLAGS) ./pkg/tunnel/conformance

.PHONY: test-faults
test-faults: build ## Break nodes of a lab in more than forty ways, each to be diagnosed by ravenctl (root)
	$(as_root)
	@hack/install-deps.sh test
	go test -count=1 -timeout 10m $(TESTFLAGS) ./test/faults

.PHONY: test-lab-ipsec
test-lab-ipsec: build ## Run the lab's checks with IPsec (root, some minutes)
	$(as_root)
	@hack/install-deps.sh test ipsec
	bin/raven-lab check --vpn-driver=ipsec --agent-flag=--ipsec-esp=userspace $$(bin/raven-lab check | awk '{ print $$1 }')
	RAVEN_TEST_IPSEC=1 go test -race -count=1 -timeout 10m $(TESTFLAGS) -run '^TestSwitching' ./test/lab

e2e_images := dist/e2e
.PHONY: e2e
e2e: build ## Go through the tutorial on a real Kubernetes in network namespaces (root; builds it once, about 30 minutes)
	$(as_root)
	@hack/install-deps.sh build test generate image e2e
	@test/cluster/binaries/build.sh >/dev/null
	@test/cluster/containerd/build.sh >/dev/null
	@test/cluster/helm/build.sh >/dev/null
	@VERSION='$(VERSION)' test/e2e/images.sh $(e2e_images)
	RAVEN_E2E_IMAGES='$(CURDIR)/$(e2e_images)' RAVEN_E2E_VERSION='$(VERSION)' go test -count=1 -v -timeout 40m $(TESTFLAGS) ./test/e2e

.PHONY: test-floors
test-floors: build ## Measure acceleration against the baseline and hold it to its floors (root, a quiet machine)
	$(as_root)
	@hack/install-deps.sh test
	RAVEN_TEST_FLOORS=1 go test -count=1 -v -timeout 10m -run '^TestAcceleration' $(TESTFLAGS) ./bench

# make bench: how often the paths take turns, how long each single measurement lasts, and how long all of them together
# may take, with fewer rounds where that is short; what else is measured takes two minutes more.
ROUNDS ?= 5
EACH ?= 1s
WITHIN ?= 12m
# More arguments for `raven-bench measure`, such as BENCHFLAGS='--tunnel=plain --proxy=false'.
BENCHFLAGS ?=
.PHONY: bench
bench: build ## Measure all paths, tunnels and the proxy into bench/results/ and README.md (root, a quiet machine, 15 minutes)
	$(as_root)
	@hack/install-deps.sh test ipsec bench
	RAVEN_BENCH_PROGRAMS=$(CURDIR)/bench/results/programs.json go test -count=1 -run '^TestCostOfEachProgramPerPacket$$' ./bpf
	@# What it holds the plugin to is its own business: the figure is written in any case.
	RAVEN_BENCH_CNI=$(CURDIR)/bench/results/cni.json go test -count=1 -run '^TestTheMedianADD' ./pkg/cni || true
	bin/raven-bench measure --rounds=$(ROUNDS) --each=$(EACH) --within=$(WITHIN) --out=bench/results $(BENCHFLAGS)
	bin/raven-bench report

.PHONY: bench-quick
bench-quick: build ## Measure the paths over plain and WireGuard tunnels, and the proxy, once, into dist/bench (root, 3 minutes)
	$(as_root)
	@hack/install-deps.sh test bench
	bin/raven-bench measure --quick --rounds=1 --each=1s --rules=0 --rules-encrypted=0 --tunnel=plain,wireguard \
		--metric=rtt_p50_us,tcp_bits_per_second,udp64_packets_per_second,connections_per_second --out=dist/bench $(BENCHFLAGS)
	bin/raven-bench report --results=dist/bench --readme=
	@echo "tables and plots are in dist/bench"

.PHONY: bench-report
bench-report: build ## Write tables, plots and README.md's figures from bench/results/latest.json
	bin/raven-bench report

.PHONY: raise-gate
raise-gate: ## Take the present costs of programs, planner, proxy and plugin as the baselines of the gate (root, a quiet machine)
	$(as_root)
	RAVEN_GATE=raise go test -count=1 -v -run '^TestGateOf' ./bpf ./pkg/topology ./pkg/proxy/mux ./pkg/proxy/front ./pkg/cni

.PHONY: bench-cni
bench-cni: ## Measure what the CNI plugin adds to a pod's ADD (root, a quiet machine)
	$(as_root)
	RAVEN_BENCH_CNI=$(CURDIR)/bench/results/cni.json go test -count=1 -v -run '^TestTheMedianADD' ./pkg/cni

.PHONY: bench-controlplane
bench-controlplane: cluster-binaries ## Measure the controller at 1,000 gateways and 10,000 nodes into bench/results/, and hold it to its limits
	RAVEN_BENCH_CONTROLPLANE=$(CURDIR)/bench/results/controlplane.json go test -count=1 -v -timeout 30m $(TESTFLAGS) ./bench/controlplane

.PHONY: demo
demo: build ## Three regions talk: start the lab, check it, show a table (root); KEEP=1 leaves it up
	$(as_root)
	@hack/install-deps.sh demo
	@bin/raven-lab demo $(if $(filter-out 0,$(KEEP)),--keep)

.PHONY: demo-down
demo-down: build ## Remove a lab that make demo KEEP=1 left up (root)
	$(as_root)
	@bin/raven-lab down

# Where the images of `make deploy` come from: REPOSITORY/raven-agent:VERSION and REPOSITORY/raven-controller:VERSION.
REPOSITORY ?= ravencni

.PHONY: manifests
manifests: ## Write all of Raven's manifests for REPOSITORY and VERSION to dist/raven.yaml
	@mkdir -p dist
	go run ./hack/render --repository '$(REPOSITORY)' --version '$(VERSION)' --vpn-driver '$(VPN_DRIVER)' manifests/install >dist/raven.yaml

.PHONY: deploy undeploy
deploy: ## Install Raven on the cluster that kubectl reaches: VPN_DRIVER=wireguard make deploy
	@REPOSITORY='$(REPOSITORY)' VERSION='$(VERSION)' hack/deploy.sh deploy
undeploy: ## Clean every node and delete Raven from the cluster; CRDS=delete deletes the Gateways, too
	@REPOSITORY='$(REPOSITORY)' VERSION='$(VERSION)' hack/deploy.sh undeploy

# The processor architectures of the images.
ARCHS ?= amd64 arm64
export ARCHS

.PHONY: image
image: ## Make the images as OCI archives in dist/images, without a container engine (the first time some minutes)
	@hack/install-deps.sh build image
	@REPOSITORY='$(REPOSITORY)' VERSION='$(VERSION)' hack/image/build.sh dist/images

.PHONY: test-image
test-image: image ## Check the image archives, and run what is in them (root)
	$(as_root)
	RAVEN_IMAGES="$$PWD/dist/images" go test -count=1 $(TESTFLAGS) ./test/image

.PHONY: chart
chart: ## Pack the Helm chart for REPOSITORY and VERSION into dist/
	@REPOSITORY='$(REPOSITORY)' VERSION='$(VERSION)' hack/bundle.sh chart dist

.PHONY: bundle
bundle: image ## Put all that a site without a registry needs into one file in dist/
	@REPOSITORY='$(REPOSITORY)' VERSION='$(VERSION)' hack/bundle.sh bundle dist
