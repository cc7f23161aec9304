# `make` alone lists what there is.

PREFIX ?= /usr/local
MUSL := $(shell uname -m)-unknown-linux-musl
SHIM := target/$(MUSL)/release/containerd-shim-cryo-v2

.PHONY: help demo test test-quick test-vm test-zoo bench binaries install uninstall image lint fuzz clean

help: ## list these targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo
	@echo "  HOST=stable|next|local   which test host (default: stable and next; for demo: next)"
	@echo "  QUICK=1                  a shorter benchmark, without 1 GiB"
	@echo "  BENCH=containerd|docker  only that part of the benchmark"
	@echo "  SHIM=cryo|stock|dropin   which shim is tested end to end: ours, the stock one, ours in its place"
	@echo "  TESTS=words              of the end-to-end tests only those with these words in their names"
	@echo "  PREFIX=$(PREFIX)       where install puts the binaries"

demo: ## a counter freezes, vanishes and goes on, in a real containerd
	@tests/run demo

test: ## all tests, on real daemons too; makes the test hosts
	@tests/run all

test-quick: ## unit and component tests: no root, no daemons
	@tests/run quick

test-vm: ## cgroup v2, soft-dirty and a reboot, in a virtual machine; slow. SYSTEMD=1: under systemd
	@tests/run vm

test-zoo: ## real programs under load (Redis, nginx, Node, a JVM, ...), checkpointed by Docker; slow
	@tests/run zoo

bench: ## this shim and the stock one, side by side
	@tests/run bench

binaries:
	@. tests/host/toolchain && toolchain && cargo build --release --target $(MUSL) -p containerd-shim-cryo-v2 -p cryo --bin containerd-shim-cryo-v2 --bin cryo

install: binaries ## put the shim where containerd finds it, and the command `cryo` beside it
	install -D -m 0755 $(SHIM) $(DESTDIR)$(PREFIX)/bin/containerd-shim-cryo-v2
	install -D -m 0755 $(dir $(SHIM))cryo $(DESTDIR)$(PREFIX)/bin/cryo
	$(dir $(SHIM))cryo man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(dir $(SHIM))cryo completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/cryo
	@echo "Next: cryo doctor            says whether everything that it takes is there"
	@echo "      cryo install docker    has Docker use it (or containerd); ctr needs nothing but its name"

image: binaries ## target/image: what the image for Kubernetes' nodes is built from
	install -D -m 0755 -t target/image $(SHIM) $(dir $(SHIM))cryo
	install -m 0644 -t target/image deploy/kubernetes/Containerfile
	@echo "Next: docker build -t REGISTRY/cryo:VERSION -f target/image/Containerfile target/image, push it,"
	@echo "      name it in deploy/kubernetes/base/kustomization.yaml, and kubectl apply -k deploy/kubernetes"

uninstall: ## remove them
	@if [ -e $(DESTDIR)/var/lib/cryo/install.json ]; then \
		echo "Daemons still start Cryo. First run: cryo install docker --uninstall; the same for containerd and kubernetes"; exit 1; fi
	rm -f $(DESTDIR)$(PREFIX)/bin/containerd-shim-cryo-v2 $(DESTDIR)$(PREFIX)/bin/cryo
	rm -f $(DESTDIR)$(PREFIX)/share/man/man1/cryo.1 $(DESTDIR)$(PREFIX)/share/man/man1/cryo-*.1
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/cryo

lint: ## formatting, clippy, house rules, oldest compiler, licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo test --quiet -p cryo --test tidy
	@echo "checking with the oldest Rust that is supported"
	@sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | xargs -I{} sh -c 'rustup toolchain install {} --profile minimal --no-self-update 2>/dev/null && cargo +{} check --quiet --target-dir target/msrv'
	@command -v cargo-deny >/dev/null && cargo deny --workspace --log-level error check bans licenses sources || echo "cargo-deny isn't installed: licences unchecked"

fuzz: ## every fuzz target for a minute (needs nightly Rust and cargo-fuzz)
	cd tests/fuzz && for target in targets/*.rs; do cargo +nightly fuzz run --fuzz-dir . $$(basename $$target .rs) -- -max_total_time=60 || exit 1; done

clean: ## remove what was built, and test hosts with what they left
	cargo clean
	tests/host/host clean --all
