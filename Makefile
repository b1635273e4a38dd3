# Every target is one idea; what takes more than a line is in scripts/.

# Where rustup, Go and Debian's daemons live when the shell does not say so.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help setup build dist profile image examples demo test test-vm test-kubernetes churn storm calls fuzz lint bench bench-full bench-http bench-instructions bench-baseline bench-peers clean

# What the benchmarks measure, and what to compare it with (a directory with
# both binaries; `make bench-baseline REF=…` makes one).
BINARIES ?= target/release
BASELINE ?=
REF ?= HEAD~1

# What is released: for which machines, with how many compilers at once (all of
# the processors if not given).
ARCHS ?= x86_64 aarch64
JOBS ?=

# What is fuzzed, and for how many seconds each (all, and a minute, if not given).
TARGETS ?=
EACH ?=

# Where the programs of an image are.
FROM ?= target/dist/out

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## Install what is missing: Debian packages (as root), Rust targets
	@scripts/setup.sh

# One invocation each on purpose: in one, cargo would unify features and link the
# compiler, which only `wisp` may contain, into the shim.
build: setup ## The binaries, in target/release/
	cargo build --release --locked -p wisp-shim
	cargo build --release --locked -p wisp-cli
	cargo build --release --locked -p wisp-node-installer

dist: examples ## Static binaries to release, in target/dist/out/ (as root; ARCHS=x86_64)
	@scripts/setup.sh dist
	@ARCHS="$(ARCHS)" JOBS="$(JOBS)" scripts/dist.sh
	@scripts/test-dist.sh

profile: build examples ## Count what releases are optimised by, into crates/shim/profile/
	@scripts/setup.sh profile
	@scripts/profile.sh

image: ## The node installer's image of what `make dist` left (FROM=target/release: of `make build`)
	@scripts/image.sh $(FROM)

examples: setup ## The guests, in target/guests/
	@examples/build.sh

demo: build examples ## Run the examples under a private containerd (as root)
	@scripts/demo.sh

test: setup ## Unit tests, then the suites with real containerds (as root)
	@scripts/test.sh

test-vm: build examples ## The suites on cgroup v2 and systemd, in an emulated machine (as root)
	@tests/vm/run.sh

test-kubernetes: build examples ## wisp in a cluster of one node, made here of Kubernetes' own programs (as root)
	@tests/kubernetes/run.sh

churn: build examples ## 1,000 containers and 200 pods come and go, with random kills (as root)
	WISP_CHURN=1000/50 cargo test --release --locked -p wisp-tests --test containerd -- churn --nocapture
	WISP_CHURN_PODS=200/10 cargo test --release --locked -p wisp-tests --test cri -- churn --nocapture

storm: build examples ## 100,000 requests from 256 clients, of which many leave (as root)
	WISP_STORM=100000/256 cargo test --release --locked -p wisp-tests --test containerd -- http_threads --nocapture

calls: build examples ## Compare the list of system calls with what guests' processes make (as root; BINARIES=dir)
	@tests/calls.sh $(BINARIES)

fuzz: setup ## Feed each parser inputs guided by coverage (EACH=60 seconds, TARGETS=all)
	@EACH="$(EACH)" scripts/fuzz.sh $(TARGETS)

lint: setup ## Format, clippy, dependency policy
	@scripts/lint.sh

bench: bench-peers ## Measure beside the peers, about 17 minutes (BINARIES=dir BASELINE=dir)
	target/release/wisp-bench run --binaries $(BINARIES) $(if $(BASELINE),--baseline $(BASELINE))

bench-full: bench-peers ## The same with more samples, two hours
	target/release/wisp-bench run --plan full --binaries $(BINARIES) $(if $(BASELINE),--baseline $(BASELINE))

bench-http: bench-peers ## Only HTTP servers, about 12 minutes (BINARIES=dir BASELINE=dir)
	target/release/wisp-bench run --only http --binaries $(BINARIES) $(if $(BASELINE),--baseline $(BASELINE))

bench-instructions: examples ## Compare two builds by instructions (BASELINE=dir)
	@test -n "$(BASELINE)" || { echo "bench-instructions: BASELINE=dir is needed (make bench-baseline REF=…)" >&2; exit 1; }
	cargo build --quiet --release --locked -p wisp-bench
	target/release/wisp-bench instructions --binaries $(BINARIES) --baseline $(BASELINE)

bench-baseline: setup ## Build an earlier wisp to compare with (REF=commit)
	@benches/build.sh baseline $(REF)

bench-peers: $(if $(filter target/release,$(BINARIES)),build) examples
	@benches/build.sh guests
	@benches/build.sh peers
	cargo build --quiet --release --locked -p wisp-bench

clean: ## Remove everything that was built
	cargo clean
