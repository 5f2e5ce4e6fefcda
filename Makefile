.PHONY: check ci docs

check:            ## format, lint, types, layers, quick tests
	ruff format --check src tests benchmarks
	ruff check src tests benchmarks
	mypy
	lint-imports
	pytest -q -n auto -m "not slow"

ci:               ## everything
	bash .ci/run

docs:             ## write the generated pages
	python docs/generate.py
