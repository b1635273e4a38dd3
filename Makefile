# Every target is one idea; what takes more than a line is in scripts/.

# Where rustup, Go and Debian's daemons live when the shell does not say so.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help setup build examples demo test lint clean

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## Install what is missing: Debian packages (as root), Rust targets
	@scripts/setup.sh

# Two invocations on purpose: in one, cargo would unify features and link the
# compiler, which only `wisp` may contain, into the shim.
build: setup ## The two binaries, in target/release/
	cargo build --release --locked -p wisp-shim
	cargo build --release --locked -p wisp-cli

examples: setup ## The guests, in target/guests/
	@examples/build.sh

demo: build examples ## Run the examples under a private containerd (as root)
	@scripts/demo.sh

test: setup ## Unit tests, then the suites with real containerds (as root)
	@scripts/test.sh

lint: setup ## Format, clippy, dependency policy
	@scripts/lint.sh

clean: ## Remove everything that was built
	cargo clean
