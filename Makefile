# safectl: `make demo` runs the main job, `make test` the tests; both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# Compilers and emulators for the generated C, tools that flash, and an off-screen renderer for pictures.
SYSTEM := gcc gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm libegl1 libopengl0 libgl1-mesa-dri \
	gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc gcc-avr avr-libc simavr \
	gdb-multiarch openocd dfu-util clang clang-tidy cppcheck
# Safety-Gymnasium pins versions that do not exist for this Python: installed without its pins.
UNPINNED := safety-gymnasium==1.0.0
PYTEST := $(BIN)/python -m pytest
# The second ROS 2 distribution, in an environment of its own: two never share one.
KILTED := .venv-kilted
ROS_TESTS := tests/ros tests/unit/safectl_ros
PIP_OPTIONS := --quiet --disable-pip-version-check

# Puts the ROS 2 package into the environment $(1) as `colcon build --symlink-install` does: what runs is the checkout.
define install_ros_package
@$(1)/bin/pip install $(PIP_OPTIONS) --no-deps --no-build-isolation -e ./launch
@test ! -L $(1)/share/safectl_ros || rm $(1)/share/safectl_ros
@mkdir -p $(1)/share/ament_index/resource_index/packages $(1)/share/safectl_ros
@touch $(1)/share/ament_index/resource_index/packages/safectl_ros
@ln -sfn $(CURDIR)/launch $(1)/share/safectl_ros/launch
@ln -sfn $(addprefix $(CURDIR)/launch/,config dds security package.xml) $(1)/share/safectl_ros
endef

# Off-screen rendering without a display; the variable is MuJoCo's.
export MUJOCO_GL ?= egl

.PHONY: help setup demo check test test-slow test-kilted bench figures c wheel colcon docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP)  ## system packages, virtual environment, editable install, hooks

$(STAMP): pyproject.toml constraints.txt Makefile launch/setup.py launch/requirements/ros-jazzy.txt
	@sh tests/packaging/system_packages.sh $(SYSTEM)
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing Python packages into $(VENV) ..."
	@$(BIN)/pip install $(PIP_OPTIONS) "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	@$(BIN)/pip install $(PIP_OPTIONS) --no-deps --require-hashes -r launch/requirements/ros-jazzy.txt
	@$(BIN)/pip install $(PIP_OPTIONS) -c constraints.txt -e '.[dev]'
	@$(BIN)/pip install $(PIP_OPTIONS) --no-deps $(UNPINNED)
	$(call install_ros_package,$(VENV))
	@git rev-parse --git-dir >/dev/null 2>&1 && $(BIN)/pre-commit install >/dev/null 2>&1 || true
	@touch $@

demo: $(STAMP)  ## train with and without the safeguard, compare, run on the emulated board
	@$(BIN)/safectl demo

check: $(STAMP)  ## format, lint, types, layers, sizes
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tests/packaging/size_gate.py
	@git ls-files | xargs $(BIN)/python tests/packaging/text_gate.py

test: $(STAMP)  ## every test that takes under two seconds, the C and emulator tests included
	@$(PYTEST) -n 2 -m "not slow and not gpu and not hil"

test-slow: $(STAMP)  ## must-learn, statistical and long oracle tests
	@$(PYTEST) -n 2 -m "slow and not gpu and not hil"

test-kilted: $(KILTED)/.complete  ## the ROS tests with ROS 2 Kilted in place of Jazzy
	@$(KILTED)/bin/python -m pytest -n 2 $(ROS_TESTS)

$(KILTED)/.complete: pyproject.toml constraints.txt launch/setup.py launch/requirements/ros-kilted.txt
	@test -x $(KILTED)/bin/pip || $(PYTHON) -m venv $(KILTED)
	@echo "installing Python packages into $(KILTED) ..."
	@grep -v '^ros-' constraints.txt > $(KILTED)/constraints.txt
	@$(KILTED)/bin/pip install $(PIP_OPTIONS) "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	@$(KILTED)/bin/pip install $(PIP_OPTIONS) --no-deps --require-hashes -r launch/requirements/ros-kilted.txt
	@$(KILTED)/bin/pip install $(PIP_OPTIONS) -c $(KILTED)/constraints.txt -e '.[agents,mcu,test]'
	@$(KILTED)/bin/pip install $(PIP_OPTIONS) --no-deps $(UNPINNED)
	$(call install_ros_package,$(KILTED))
	@touch $@

c: $(STAMP)  ## generated C: host with sanitizers, emulated Cortex-M4
	@$(PYTEST) -n 2 tests/c

bench: $(STAMP)  ## the named benchmarks that take under a minute
	@$(BIN)/safectl bench --quick || [ $$? -eq 3 ]  # 3: ran, but a target is not met
	@$(BIN)/python tests/docs/figures.py

figures: $(STAMP)  ## write docs/figures.md from the recorded results
	@$(BIN)/python tests/docs/figures.py

wheel: $(STAMP)  ## source distribution, wheel, names and files inside it
	@$(BIN)/python tests/packaging/wheel_gate.py

colcon: $(STAMP)  ## build the ROS 2 package in a colcon workspace, check what it installs
	@$(BIN)/python tests/packaging/colcon_gate.py

docs: $(STAMP)  ## README blocks, doctests and links
	@$(PYTEST) tests/docs

clean:  ## remove the virtual environments and caches; runs and demo results are kept
	rm -rf $(VENV) $(KILTED) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
