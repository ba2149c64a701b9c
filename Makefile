# `make` alone lists the targets. Variables: VENV, PYTHON, PYTEST_ARGS, PYTEST_WORKERS, NO_SKIPS=1, SECONDS, SOAK_ARGS, SANITIZE_CC, MODEL.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:

VENV ?= .venv
PYTHON ?= python3
PYTEST_ARGS ?=
PYTEST_WORKERS ?= $(shell expr 2 '*' "$$(nproc)") # tests mostly wait for processes

PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
C_SOURCES := $(sort $(wildcard csrc/*.c))
PYTHON_SOURCES := $(wildcard csrc/python/*.c)
C_HEADERS := $(sort $(wildcard csrc/*.h tests/csrc/*.h tests/crash/*.h))
C_TESTS := $(patsubst tests/csrc/%.c,%,$(sort $(wildcard tests/csrc/test_*.c)))

.PHONY: help
help: ## print this
	@echo "targets:"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name text; do \
	    printf '  %-12s %s\n' "$$name" "$$text"; done

# ---- the environment

.PHONY: venv
venv: $(INSTALLED) ## make the environment (.venv, by python3), and (re)build coopshm in it

$(PY):
	.ci/prepare $(PYTHON)
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Editable: Python sources are used in place; the C core is rebuilt here when anything it is made of changes.
# uWSGI comes as sources: with no other plug-ins than these, it is built in ten seconds. pip keeps the wheel.
$(INSTALLED): export UWSGI_PROFILE ?= pyonly
$(INSTALLED): export UWSGI_PROFILE_OVERRIDE ?= embedded_plugins=python,gevent
$(INSTALLED): $(C_SOURCES) $(PYTHON_SOURCES) $(wildcard csrc/*.h) build.py setup.py pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --use-pep517 --editable '.[dev]'
	touch $@

# ---- tests

# In CI a skipped test fails the run, unless its reason says that the skip is expected (tests/_no_skips.py).
ifeq ($(CI),true)
NO_SKIPS ?= 1
endif

# What some tests drive. Where it is not to be had, those tests are skipped, but not in CI. Of Prometheus, Redis and Valkey the
# packages of the servers are only unpacked, since installed they would start a service; what they need comes with the tools' ones.
# 1: redis or valkey
engine = { command -v $(1)-server >/dev/null || [ -x build/tools/usr/bin/$(1)-server ] || \
    { .ci/install $(1)-tools && .ci/unpack build/tools $(1)-tools $(1)-server; }; }
.PHONY: tools
tools: ## a browser, Prometheus, Redis and Valkey for the tests that drive them, where that needs no question
	@command -v chromium >/dev/null || .ci/install chromium$(if $(filter true,$(CI)),, || true)
	@command -v promtool >/dev/null || [ -x build/tools/usr/bin/promtool ] || \
	    .ci/unpack build/tools prometheus$(if $(filter true,$(CI)),, || true)
	@$(call engine,redis)$(if $(filter true,$(CI)),, || true)
	@! apt-cache show valkey-server >/dev/null 2>&1 || $(call engine,valkey)$(if $(filter true,$(CI)),, || true)

.PHONY: test
test: $(INSTALLED) tools test-c test-crash ## run every test: the C programs of tests/csrc and tests/crash, then pytest
	$(PY) -m pytest -n $(PYTEST_WORKERS) $(if $(NO_SKIPS),-p tests._no_skips) $(PYTEST_ARGS)

SECONDS ?= 60
SOAK_ARGS ?=

.PHONY: soak
soak: $(INSTALLED) ## everything at once for SECONDS (60) while processes are killed and stopped; SOAK_ARGS
	$(PY) -m tests.soak --seconds $(SECONDS) $(SOAK_ARGS)

.PHONY: soak-cluster
soak-cluster: $(INSTALLED) ## whole hosts with sidecars for SECONDS (60), links and processes failing at random; SOAK_ARGS. Needs root
	$(PY) -m tests.soak_cluster --seconds $(SECONDS) $(SOAK_ARGS)

.PHONY: takeover
takeover: $(INSTALLED) ## how long the living wait for the dead and the stopped
	$(PY) -m tests.soak.takeover

.PHONY: servers
servers: $(INSTALLED) ## run real servers, and write what came of it into the table of docs/servers.md
	$(PY) -m tests.servers.table

.PHONY: demo
demo: $(INSTALLED) ## 64 clients on a real gunicorn: per-worker caching beside coopshm
	$(PY) -m demo

ENGINE ?=
DEMO_ARGS ?=

.PHONY: demo-cluster
demo-cluster: $(INSTALLED) $(if $(ENGINE),tools) ## three nodes with a sidecar each: once in the cluster, a reset that travels, a node lost and back; ENGINE=redis
	$(PY) -m demo.cluster $(if $(ENGINE),--engine $(ENGINE)) $(DEMO_ARGS)

.PHONY: demo-top
demo-top: $(INSTALLED) ## record coopshm-admin top beside the demonstration's server, as docs/top.svg
	$(PY) -m demo.top docs/top.svg

.PHONY: screenshot
screenshot: $(INSTALLED) tools ## docs/status.png: the status page of a gunicorn under load
	$(PY) -m tests.status.screenshot

.PHONY: bench
bench: $(INSTALLED) ## run the benchmarks, beside all peers that can be installed (12 minutes)
	$(PY) -m bench.prepare
	$(PY) -m bench

.PHONY: bench-cluster
bench-cluster: $(INSTALLED) tools ## the same for clusters, on network namespaces (root): peers and Redis side by side (9 minutes)
	$(PY) -m bench cluster

.PHONY: guard
guard: $(INSTALLED) ## instructions of a hit, compared with the committed ones (no timing)
	$(PY) -m bench.guard

.PHONY: lint
lint: $(INSTALLED) ## ruff: rules and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

.PHONY: types
types: $(INSTALLED) ## mypy, strict
	$(PY) -m mypy

# ---- the C core by itself
#
# Each tests/csrc/test_*.c is a program, linked with all of csrc/*.c, that returns 0 when it passes. It is built
# in three variants, each under build/c/VARIANT: plain, asan (address and undefined behaviour) and tsan (threads). Those of
# tests/crash have a fourth one, points.

C_FLAGS := -std=gnu11 -g -Wall -Wextra -Icsrc -Itests/csrc
# 1: a compiler; succeeds when it can build and start a program under each of the sanitizers.
sanitizes = for s in address,undefined thread; do \
    echo 'int main(void) { return 0; }' | $(1) -fsanitize=$$s -x c - -o build/c/probe && build/c/probe; done
SANITIZE_CC ?= $(shell mkdir -p build/c; for cc in clang gcc; do \
    { $(call sanitizes,$$cc) && echo $$cc && break; } 2>/dev/null; done)
ASAN_FLAGS := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
TSAN_FLAGS := -O1 -fno-omit-frame-pointer -fsanitize=thread

# 1: variant, 2: compiler, 3: flags
define c_variant
build/c/$(1)/%.o: csrc/%.c $(C_HEADERS) Makefile
	@mkdir -p $$(@D)
	$(2) $(C_FLAGS) $(3) -c $$< -o $$@
build/c/$(1)/test_%: tests/csrc/test_%.c $(patsubst csrc/%.c,build/c/$(1)/%.o,$(C_SOURCES)) $(C_HEADERS) Makefile
	@mkdir -p $$(@D)
	$(2) $(C_FLAGS) $(3) $$< $$(filter %.o,$$^) -lrt -pthread -o $$@
.PHONY: run-$(1)
run-$(1): $(addprefix build/c/$(1)/,$(C_TESTS))
	@for program in $$^; do echo "run $$$$program"; timeout 300 $$$$program; done
endef
$(eval $(call c_variant,plain,$$(CC),-O2))
$(eval $(call c_variant,asan,$$(SANITIZE_CC),$(ASAN_FLAGS)))
$(eval $(call c_variant,tsan,$$(SANITIZE_CC),$(TSAN_FLAGS)))
$(eval $(call c_variant,points,$$(CC),-O2 -DCSM_CRASH_POINTS))

.PHONY: test-c
test-c: run-plain

run-asan: export ASAN_OPTIONS ?= abort_on_error=1
run-asan: export UBSAN_OPTIONS ?= print_stacktrace=1
run-tsan: export TSAN_OPTIONS ?= halt_on_error=1

# A process is killed and stopped at every instruction (sweep.c; -z now: or its first call of anything in libc would be a search
# for it), and at the named points of csrc/point.h, which are in no other objects than these.
POINT_TESTS := $(patsubst tests/crash/%.c,build/c/points/%,$(sort $(wildcard tests/crash/test_*.c)))
build/c/plain/sweep: tests/crash/sweep.c $(patsubst csrc/%.c,build/c/plain/%.o,$(C_SOURCES)) $(C_HEADERS) Makefile
	$(CC) $(C_FLAGS) -O2 $< $(filter %.o,$^) -lrt -pthread -Wl,-z,now -o $@
$(POINT_TESTS): build/c/points/%: tests/crash/%.c $(patsubst csrc/%.c,build/c/points/%.o,$(C_SOURCES)) $(C_HEADERS) Makefile
	$(CC) $(C_FLAGS) -O2 $< $(filter %.o,$^) -lrt -pthread -o $@

.PHONY: test-crash
test-crash: build/c/plain/sweep $(POINT_TESTS)
	@! nm build/c/plain/*.o | grep csm_crash_point # nothing of them in what is shipped
	@for program in $(POINT_TESTS); do echo "run $$program"; timeout 300 $$program; done
	$< --every 100

.PHONY: crash
crash: build/c/plain/sweep ## kill and stop a process at every instruction of everything (long)
	nice $< $(CRASH_ARGS)

# Hostile bytes (tests/hostile): clang can call the harness before each load of the core; with gcc it says that it left that out.
HOSTILE_FLAGS = $(ASAN_FLAGS) -Itests/hostile
comma := ,
TRACE_LOADS = $(if $(findstring clang,$(SANITIZE_CC)),-fsanitize-coverage=func$(comma)trace-loads)
HOSTILE_SOURCES := $(sort $(wildcard tests/hostile/*.c))

build/c/hostile/core/%.o: csrc/%.c $(C_HEADERS) Makefile
	@mkdir -p $(@D)
	$(SANITIZE_CC) $(C_FLAGS) $(HOSTILE_FLAGS) $(TRACE_LOADS) -c $< -o $@
build/c/hostile/%.o: tests/hostile/%.c $(C_HEADERS) $(wildcard tests/hostile/*.h) Makefile
	@mkdir -p $(@D)
	$(SANITIZE_CC) $(C_FLAGS) $(HOSTILE_FLAGS) -c $< -o $@
build/c/hostile/hostile: $(patsubst csrc/%.c,build/c/hostile/core/%.o,$(C_SOURCES)) \
    $(patsubst tests/hostile/%.c,build/c/hostile/%.o,$(HOSTILE_SOURCES))
	$(SANITIZE_CC) $(C_FLAGS) $(HOSTILE_FLAGS) $^ -Wl,--wrap=mmap -lrt -pthread -o $@

.PHONY: hostile
hostile: SECONDS ?= 60
hostile: export ASAN_OPTIONS ?= abort_on_error=1
hostile: export UBSAN_OPTIONS ?= print_stacktrace=1
hostile: build/c/hostile/hostile ## damage segments in every way, for SECONDS=60 altogether, and count what comes of it
	$< --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

PYTHON_FLAGS = -isystem $$($(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))')
.PHONY: warnings
warnings: | $(PY)
	@for cc in gcc clang; do \
	    command -v $$cc >/dev/null || { echo "$$cc: not installed"; continue; }; \
	    for source in $(C_SOURCES); do $$cc $(C_FLAGS) -O2 -Werror -c $$source -o /dev/null; done; \
	    for source in $(PYTHON_SOURCES); do \
	        $$cc $(C_FLAGS) $(PYTHON_FLAGS) -O2 -Werror -c $$source -o /dev/null; done; \
	    echo "$$cc: no warnings"; \
	done

.PHONY: sanitize
sanitize: warnings ## C tests under ASan/UBSan and TSan, hostile bytes; the C core without warnings under gcc and clang
	@[ -n "$(SANITIZE_CC)" ] || { echo "neither clang nor gcc can build with sanitizers here" >&2; exit 1; }
	$(MAKE) run-asan run-tsan hostile SECONDS=15 SANITIZE_CC=$(SANITIZE_CC)

# ---- the model

# quick: what CI runs. Anything else: every case; keys-three alone has some 80 million states, in 5 GB.
MODEL ?= full

.PHONY: model
model: ## the model of the core's protocol: exhaust its cases, find its broken variants faulty (MODEL=quick)
	@command -v spin >/dev/null || .ci/install spin
	@command -v gcc >/dev/null || .ci/install gcc libc6-dev
	$(PYTHON) csrc/model/run.py $(if $(filter quick,$(MODEL)),--quick)

# ---- distributions

# The wheel is built from the sdist, then installed and used away from the tree.
.PHONY: dist
dist: $(INSTALLED) ## build sdist and wheel into dist/, and try the wheel in an environment of its own
	rm -rf dist build/dist-venv
	mkdir -p build
	$(VENV)/bin/pyproject-build --outdir dist > build/dist.log 2>&1 || { cat build/dist.log; exit 1; }
	$(PY) -m venv build/dist-venv
	build/dist-venv/bin/python -m pip install --quiet dist/*.whl
	cd build && dist-venv/bin/python -c 'import coopshm._core, sys; print(sys.version.split()[0], coopshm._core.__file__)'
	ls -l dist

.PHONY: clean
clean: ## remove what was built; the environments stay
	rm -rf build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f coopshm/_core*.so coopshm/_front*.so .venv*/.installed $(INSTALLED)
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
