# Two commands, each of which sets itself up on a fresh machine (Python 3.11):
#   make demo   compares cross-entropy, NLLR and CRL on real digits, report
#   make test   runs every test on TensorFlow, JAX and PyTorch
# Also: make docs, make benchmark, make lint.

PYTHON ?= python3
PIP := -m pip install --disable-pip-version-check --no-compile
export TF_CPP_MIN_LOG_LEVEL ?= 2
# Two jobs side by side: while one installs or starts, the other computes.
MAKEFLAGS += --jobs=2
# Python compiles a module when it is first used: pip would compile all of
# TensorFlow and PyTorch, which takes as long as unpacking them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-suite test-oldest docs benchmark lint clean

demo: .venv/demo/ready
	KERAS_BACKEND=jax .venv/demo/bin/python examples/compare_losses.py \
	    --dataset digits --network mlp --losses ce nllr crl --seeds 30 \
	    --output runs/demo

test: test-suite test-oldest

test-suite: .venv/test/wheel
	.venv/test/bin/ruff check .
	.venv/test/bin/ruff format --check .
	.venv/test/bin/codespell
	.venv/test/bin/mypy
	.venv/test/bin/twine check --strict dist/*.whl dist/*.tar.gz
	.venv/test/bin/python tests/run_backends.py

# It shows what it did at its end: the suite runs beside it.
test-oldest: .venv/oldest/wheel
	@echo "The tests with the oldest versions run in the background"
	@.venv/oldest/bin/python tests/run_backends.py --backends tensorflow,jax \
	    --quick losses -k "functional or saving or compiled or only" \
	    > .venv/oldest/log 2>&1; code=$$?; cat .venv/oldest/log; exit $$code

docs: .venv/docs/ready
	KERAS_BACKEND=jax .venv/docs/bin/python docs/notebook.py --check
	NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --strict

benchmark: .venv/test/wheel
	.venv/test/bin/python examples/benchmark_loss.py --output docs/results
	for backend in jax tensorflow torch; do \
	    .venv/test/bin/python examples/benchmark_training.py \
	        --backend $$backend --output docs/results || exit 1; \
	done

lint: .venv/test/ready
	.venv/test/bin/ruff check --fix .
	.venv/test/bin/ruff format .

clean:
	rm -rf .venv build dist site *.egg-info

# The demo needs one backend; JAX is the smallest to install.
.venv/demo/ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv/demo
	.venv/demo/bin/python $(PIP) --constraint constraints.txt \
	    --editable ".[jax,experiments]"
	touch $@

.venv/test/ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv/test
	.venv/test/bin/python $(PIP) --constraint constraints.txt \
	    keras tensorflow-cpu jax torch keras-cv \
	    argcomplete filelock importlib_resources jinja2 matplotlib \
	    opencv-python-headless pandas pillow pillow-heif ray rich \
	    scikit-learn scipy simplejpeg statsmodels tensorboard \
	    tensorflow-datasets \
	    codespell mypy pytest pytest-xdist ruff twine
	# KerasHub asks for tensorflow-text, which brings a second TensorFlow.
	.venv/test/bin/python $(PIP) --constraint constraints.txt --no-deps \
	    keras-hub safetensors sentencepiece tokenizers
	touch $@

# The oldest versions that pyproject.toml admits, for what depends on them: how
# models are built, compiled, trained and saved. Not of PyTorch, whose wheels
# without CUDA are not on PyPI.
.venv/oldest/ready: pyproject.toml
	$(PYTHON) -m venv .venv/oldest
	.venv/oldest/bin/python $(PIP) \
	    keras==3.8.0 jax==0.5.3 jaxlib==0.5.3 tensorflow-cpu==2.18.0 \
	    pytest pytest-xdist
	touch $@

.venv/docs/ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv/docs
	.venv/docs/bin/python $(PIP) --constraint constraints.txt \
	    --editable ".[jax,experiments]" \
	    ipykernel l2m4m mkdocs-material "mkdocstrings[python]" \
	    nbclient nbformat ruff
	touch $@

# What is tested is the wheel a user would install, not the source tree.
SOURCES := $(shell find crl_keras -type f -not -name "*.pyc") pyproject.toml README.md

.venv/build/ready: constraints.txt
	$(PYTHON) -m venv .venv/build
	.venv/build/bin/python $(PIP) --constraint constraints.txt build setuptools
	touch $@

dist/built: .venv/build/ready $(SOURCES)
	rm -rf build dist
	.venv/build/bin/python -m build --no-isolation --outdir dist .
	touch $@

.venv/%/wheel: .venv/%/ready dist/built
	.venv/$*/bin/python $(PIP) --no-deps --force-reinstall dist/*.whl
	touch $@
