# `make demo` and `make test` do all the set-up in a fresh clone. Every step is done once; a step that is done
# needs no network. On Debian and Ubuntu missing system packages are installed (through sudo when not root);
# elsewhere any Chrome or Chromium on PATH, or named by CHROMIUM=, serves.

PYTHON ?= python3
WORKERS ?= 2
SLOW ?=

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

BIN := .venv/bin
MODEL := smollm2-135m-instruct
PAGE := build/page
WHEELS := build/wheels
NATIVE_TESTS := tests/unit tests/kernels tests/models
BROWSER_TESTS := tests/browser

# A step's stamp carries the checksum of what it was made from, so that switching branches redoes only what differs.
checksum = $(firstword $(shell cksum < $(1)))
VENV_READY := .venv/.ready-$(call checksum,pyproject.toml)
NPM_READY := node_modules/.ready-$(call checksum,package-lock.json)

# Mesa asks for a runtime folder; a container or CI has none.
export XDG_RUNTIME_DIR ?= $(CURDIR)/build/run

# Tests run on the CPU, where every machine gives the same numbers: lavapipe where it is installed.
# `VK_DRIVER_FILES= make test` runs them on this machine's GPU.
on_cpu = VK_DRIVER_FILES="$${VK_DRIVER_FILES-$$(ls /usr/share/vulkan/icd.d/lvp_icd*.json 2>/dev/null | head -n 1 || true)}"
pytest = $(BIN)/python -m pytest --no-header $(if $(SLOW),-m '')

say = @printf '\033[1m==> %s\033[0m\n' "$(1)"

.PHONY: help demo test test-all lint format page wheel page-wheels lite model setup system clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

demo: setup page-wheels model ## chat in the browser; with no display or HEADLESS=1, one question in headless Chromium
	@$(BIN)/webllm demo $(if $(PORT),--port $(PORT))

test: lint lite ## what CI runs: lint, unit, kernels and one model natively, the page in Chromium
	$(call say,tests: unit$(,) kernels and one model natively)
	@$(on_cpu) $(pytest) -n $(WORKERS) --dist loadfile $(NATIVE_TESTS)
	$(call say,tests: the page in Chromium)
	@$(pytest) $(BROWSER_TESTS)

test-all: ## the same with the slow tests, and the kernels on Tint with halves
	@$(MAKE) test SLOW=1
	$(call say,tests: kernels on Tint with halves$(,) through Mesa 25)
	@command -v apt-get >/dev/null || { echo "left out: Mesa 25 comes from Debian 12's backports"; exit 0; }; \
	driver=$$(tests/kernels/mesa25.sh build/mesa25) && \
	$(on_cpu) WEBLLM_TINT_DRIVER=$$driver $(pytest) -n $(WORKERS) --dist loadfile tests/kernels -k wgpudawn

lint: setup ## ruff and mypy
	$(call say,ruff$(,) mypy)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "run: make format"; exit 1; }
	@$(BIN)/mypy --no-error-summary

format: setup ## let ruff rewrite what it can
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format .

page: $(PAGE).ready ## the page's JavaScript, bundled into build/page/

wheel: $(WHEELS)/.webllm ## the library's wheel, into build/wheels/

page-wheels: $(WHEELS)/.webllm $(WHEELS)/.third-party ## all wheels of the page, into build/wheels/

lite: page-wheels model ## a JupyterLite site with webllm and its notebooks, into build/lite/site/
	$(call say,JupyterLite in build/lite/site)
	@$(BIN)/python docs/make_lite.py build/lite/site

model: setup ## the default model, into the user's cache folder (or WEBLLM_CACHE)
	@$(BIN)/webllm pull $(MODEL) >/dev/null

setup: system $(VENV_READY) $(NPM_READY) ## everything that is installed, and nothing that is built
	@mkdir -p build && mkdir -p -m 700 build/run

clean: ## remove what was built; what was installed stays
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache test-results

# Chromium for the page, Mesa's Vulkan on the CPU for tests without a GPU, and Python's venv where Debian split it off.
system:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on PATH: install Python 3.11 or newer, or set PYTHON="; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}: set PYTHON=")'
	@command -v npm >/dev/null || { echo "npm is not on PATH: install Node.js 20 or newer"; exit 1; }
	@command -v apt-get >/dev/null || exit 0; \
	missing=; \
	[ -n "$${CHROMIUM-}" ] || command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null || missing="$$missing chromium"; \
	ls /usr/share/vulkan/icd.d/lvp_icd*.json >/dev/null 2>&1 || missing="$$missing mesa-vulkan-drivers"; \
	ls /usr/lib/*/libvulkan.so.1 >/dev/null 2>&1 || missing="$$missing libvulkan1"; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	[ -n "$$missing" ] || exit 0; \
	echo "installing system packages:$$missing"; \
	root=; [ "$$(id -u)" = 0 ] || root=sudo; \
	install() { $$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }; \
	install 2>/dev/null || { $$root apt-get update -qq; install; }

$(VENV_READY): | system
	$(call say,Python environment in .venv)
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev]'
	@rm -f .venv/.ready-* && touch $@

$(NPM_READY): | system
	$(call say,the third-party parts of the page and its tests in node_modules)
	@npm ci --loglevel=error >/dev/null
	@touch $@

$(PAGE).ready: $(NPM_READY) bundle.mjs $(shell find browser_shell -type f)
	$(call say,the page in $(PAGE))
	@rm -rf $(PAGE) && npm run --silent build
	@touch $@

# hatchling is in the environment, so building needs no network.
$(WHEELS)/.webllm: $(VENV_READY) pyproject.toml README.md LICENSE $(PAGE).ready $(shell find webllm kernels_wgsl -type f -not -path '*/__pycache__/*')
	$(call say,webllm's wheel in $(WHEELS))
	@mkdir -p $(WHEELS) && rm -f $(WHEELS)/webllm-*.whl
	@$(BIN)/python -m build --wheel --no-isolation --outdir $(WHEELS) . >build/wheel.log 2>&1 || { cat build/wheel.log; exit 1; }
	@touch $@

# markupsafe publishes no pure wheel. Built without a C compiler it makes one; pip's cache could hold a compiled one.
$(WHEELS)/.third-party: | $(VENV_READY)
	$(call say,the page's pure wheels in $(WHEELS))
	@mkdir -p $(WHEELS)
	@CC=false $(BIN)/python -m pip wheel -qq --disable-pip-version-check --no-deps --no-cache-dir \
		--no-binary markupsafe --wheel-dir $(WHEELS) jinja2==3.1.6 markupsafe==3.0.3
	@touch $@

, := ,
