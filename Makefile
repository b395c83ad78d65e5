# Two commands: `make demo` and `make test`.  Both create .venv themselves.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test chaos check wheel image protos install

demo: $(INSTALLED)
	$(BIN)/python scripts/demo.py

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Kills, outages and servers that hang, in their long form: hours.  `make test` has a short one.
chaos: $(INSTALLED)
	$(BIN)/python -m pytest tests/chaos -m slow

image: $(INSTALLED)
	scripts/build_image

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks scripts
	$(BIN)/python scripts/generate_protos.py --check
	$(BIN)/python scripts/lint_protos.py
	$(BIN)/python scripts/check_deploy.py
	$(BIN)/python -m pytest tests/unit/test_architecture.py

wheel: $(INSTALLED)
	$(BIN)/python scripts/check_wheel.py

protos: $(INSTALLED)
	$(BIN)/python scripts/generate_protos.py

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt scripts/start_s3.py
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[service,dev]'
	$(BIN)/python scripts/start_s3.py --install
	touch $@
