# `make` or `make help` lists the commands.

CARGO ?= cargo
LAB   := $(CARGO) run --quiet -p pgsteer-lab --
BENCH := $(CARGO) run --quiet --release -p pgsteer-bench --

TEST  := $(CARGO) test --workspace --locked
BUILT := $(or $(CARGO_TARGET_DIR),target)/debug

# The test targets that need no cluster.
UNIT_TESTS := $(filter-out e2e lab readers,\
	$(basename $(notdir $(wildcard crates/*/tests/*.rs))) $(notdir $(patsubst %/main.rs,%,$(wildcard crates/*/tests/*/main.rs))))
# Those that run the engine for hours of its time.
ENGINE_TESTS := precedence properties scenarios world
# Most of the others wait: for sockets, for times that run out.
UNIT_THREADS ?= 6

.DEFAULT_GOAL := help
.PHONY: help demo test check docs lint words cycles unit e2e story build install-lab lab bench bench-failover bench-proxy bench-agent bench-render deny clean

help: ## List the commands
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: install-lab ## A real cluster, pgsteer in front of it, a switchover under load (ONCE=1 ends after the demo)
	$(CARGO) build --quiet -p pgsteer -p pgsteer-lab
	$(LAB) demo $(if $(ONCE),--once) $(ARGS)

test: cargo ## Everything that CI checks, below 20 minutes on two cores
	$(MAKE) --no-print-directory -j2 install-readers lint
	$(MAKE) --no-print-directory tests
	$(MAKE) --no-print-directory -j3 unit-engine unit-rest lab-readers
	$(MAKE) --no-print-directory e2e story

check: cargo ## Format, clippy, documentation, unit tests, module cycles; under 3 minutes when warm
	$(MAKE) --no-print-directory lint cycles
	$(CARGO) test --quiet --workspace --locked --lib --bins
	$(CARGO) test --quiet -p pgsteer-core --locked --test scenarios

lint: cargo ## Format, clippy with warnings as errors, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --workspace --no-deps --locked

words: ## Count the words in comments that personify a component (at most 0.2 %)
	@python3 scripts/words.py

cycles: ## List cycles between modules; fails on a new one
	@python3 scripts/cycles.py

unit: tests ## Unit, scenario, property and protocol tests, licences and advisories
	$(MAKE) --no-print-directory -j2 unit-engine unit-rest

# The tests of the engine compute, the others mostly wait: side by side they take half of the time.
unit-engine:
	$(TEST) $(ENGINE_TESTS:%=--test %)
unit-rest:
	RUST_TEST_THREADS=$(UNIT_THREADS) $(TEST) --lib --bins $(patsubst %,--test %,$(filter-out $(ENGINE_TESTS),$(UNIT_TESTS)))
lab-readers: install-readers
	$(TEST) --test lab --test readers
.PHONY: unit-engine unit-rest lab-readers

e2e: install-readers tests ## End-to-end tests on real clusters
	$(MAKE) --no-print-directory -j2 e2e-old e2e-new

# The tests of a cluster wait half of the time, so both clusters run side by side; a third one would slow all down.
e2e-old e2e-new:
	$(TEST) --test e2e -- $(@:e2e-%=%)::
.PHONY: e2e-old e2e-new

docs: cargo ## Write what is generated from the table of keys: pgsteer.example.toml and docs/CONFIGURATION.md
	CONFIG_DOCS=update $(CARGO) test --quiet -p pgsteer-config --test example_file -- _matches_the_table_of_keys

story: install-lab tests ## The demo once, with and without a login for the tether
	$(MAKE) --no-print-directory -j2 story-tether story-without-login

story-tether:
	$(BUILT)/pgsteer-lab demo --once
story-without-login:
	$(BUILT)/pgsteer-lab demo --once --without-login --patroni debian
.PHONY: story-tether story-without-login

# All tests and the programs that they run. Always the whole workspace: with a part of it crates get other features, and
# everything is compiled again.
tests: cargo
	$(TEST) --no-run
.PHONY: tests

build: cargo ## The debug build that tests and demo use
	$(CARGO) build --quiet --locked -p pgsteer -p pgsteer-lab

lab: install-lab ## A real cluster for your own trials, until Ctrl-C (ARGS='--network namespaces --patroni debian')
	$(LAB) up $(ARGS)

bench: bench-failover bench-proxy bench-agent bench-render bench-upgrade ## All benchmarks; they write docs/BENCHMARKS.md, docs/AGENT.md and docs/RENDER.md

bench-failover: install-lab ## What clients see of a failover: pgsteer, HAProxy twice, libpq, side by side
	$(CARGO) build --quiet --release -p pgsteer -p pgsteer-bench
	$(BENCH) failover --out docs/BENCHMARKS.md $(ARGS)

bench-proxy: install-lab ## CPU per transaction: pgsteer and HAProxy in turn
	$(CARGO) build --quiet --release -p pgsteer -p pgsteer-bench
	$(BENCH) proxy --out docs/BENCHMARKS.md $(ARGS)

bench-agent: install-lab ## The agent beside happac and the blog's daemon: faults, answers, cost; writes docs/AGENT.md
	$(CARGO) build --quiet --release -p pgsteer -p pgsteer-bench
	$(BENCH) agent --out docs/AGENT.md $(ARGS)

bench-render: install-lab ## HAProxy with profile sql beside the check that it replaces; writes docs/RENDER.md
	$(CARGO) build --quiet --release -p pgsteer -p pgsteer-bench
	$(BENCH) render --out docs/RENDER.md $(ARGS)

bench-upgrade: install-lab ## An upgrade with 10,000 sessions, and HAProxy's reload; writes docs/BENCHMARKS.md
	$(CARGO) build --quiet --release -p pgsteer -p pgsteer-bench
	$(BENCH) upgrade --out docs/BENCHMARKS.md $(ARGS)
.PHONY: bench-upgrade

bench-vip: install-lab ## An address that follows the primary, beside vip-manager; needs root and vip-manager; writes docs/VIP.md
	$(CARGO) build --quiet --release -p pgsteer -p pgsteer-bench
	$(BENCH) vip --out docs/VIP.md $(ARGS)
.PHONY: bench-vip

bench-hot: cargo ## What runs most often: a turn of the engine at 3, 16 and 64 members, a login (criterion)
	$(CARGO) bench --quiet --locked -p pgsteer-bench --features hot --bench engine --bench login -- $(ARGS)
.PHONY: bench-hot

profiles: install-readers build ## Every profile of render through switchovers on HAProxy 2.6 and 3.0; writes docs/RENDER.md
	PGSTEER_PROFILES_OUT=$(CURDIR)/docs/RENDER.md $(CARGO) test -p pgsteer-lab --locked --test e2e -- profiles::no_client_hangs
.PHONY: profiles

pictures: install-readers ## The live page filmed through a switchover, and its figures: pixels, 100 open pages; writes docs/pictures
	$(CARGO) build --quiet --release --locked -p pgsteer
	PGSTEER_BIN=$(CURDIR)/target/release/pgsteer PGSTEER_PICTURES_OUT=$(CURDIR)/docs/pictures/all $(CARGO) test -p pgsteer-lab --locked --test e2e -- page::
	cp docs/pictures/all/well-light.png docs/pictures/well.png
	cp docs/pictures/all/waiting-dark.png docs/pictures/switchover.png
	cp docs/pictures/all/waiting-narrow.png docs/pictures/narrow.png
	rm -r docs/pictures/all
.PHONY: pictures

install-lab: cargo
	@sh scripts/install-lab.sh

# Also the programs that check the files of `pgsteer render`.
install-readers: cargo
	@sh scripts/install-lab.sh readers
.PHONY: install-readers

deny: ## Licences and advisories by cargo-deny (needs cargo-deny and a download)
	$(CARGO) deny check

clean: ## Remove the build
	$(CARGO) clean

cargo:
	@command -v $(CARGO) >/dev/null || { echo 'pgsteer is built by Rust 1.90 or later; install it by rustup and come back' >&2; exit 1; }
.PHONY: cargo
