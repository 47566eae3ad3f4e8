"""The layout of the package: imports go down, and never round in a circle."""

import ast
import graphlib
import pathlib
import sys

import pytest

pytestmark = pytest.mark.once

PACKAGE = pathlib.Path(__file__).parents[1] / "crl_keras"
EXPERIMENTS = "crl_keras.experiments"
GROUND = ("words", "devices", "_optional")
# From the top; a room imports the ones after it and itself.
FLOORS = (
    ("commands",),
    ("paper",),
    ("analysis",),
    ("runs",),
    ("measures", "data"),
    GROUND,
)
ROOMS = [room for floor in FLOORS[:-1] for room in floor]
WITHOUT_BACKEND = ("paper", "analysis", "measures")
BACKENDS = {"keras", "keras_cv", "keras_hub", "tensorflow", "jax", "torch"}
# The one module of the core that offers what the experiments can do.
DOOR = "crl_keras.comparing"
# Of the core, what an experiment's records need no backend for.
CORE_WITHOUT_BACKEND = {"crl_keras.version"}


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported(path, source=None):
    """Full names of what a file imports, within functions too."""
    tree = ast.parse(path.read_text() if source is None else source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            for name in node.names:
                yield f"{node.module}.{name.name}"


def modules():
    return {module_name(path): path for path in PACKAGE.rglob("*.py")}


def arrows():
    """{module: the modules of the package that it imports}."""
    known = modules()

    def module_of(target):  # A module itself, or a name in one.
        return target if target in known else target.rpartition(".")[0]

    return {
        name: {module_of(target) for target in imported(path)} & known.keys()
        for name, path in known.items()
    }


def floor(module):
    """The number of a module's floor, from the top; None outside them."""
    head, _, rest = module.partition(f"{EXPERIMENTS}.")
    if head or not rest:
        return None
    room = rest.split(".")[0]
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def room(module):
    return module.removeprefix(f"{EXPERIMENTS}.").split(".")[0]


def faults(graph):
    """The arrows that lead up or to another room of the same floor."""
    found = []
    for module, targets in graph.items():
        for target in targets:
            start, end = floor(module), floor(target)
            if start is None and end is None:
                continue
            if module == DOOR:
                continue
            # The rest of the core knows nothing of the experiments.
            up = start is None or (end is not None and end < start)
            beside = start == end and room(module) != room(target)
            if up or (beside and room(module) not in GROUND):
                found.append(f"{module} -> {target}")
    return found


def test_every_file_of_the_experiments_lies_in_a_room():
    for path in (PACKAGE / "experiments").iterdir():
        if path.suffix == ".py":
            assert path.stem in (*GROUND, "__init__"), path
        elif path.is_dir() and path.name != "__pycache__":
            assert path.name in ROOMS
            said = ast.get_docstring(
                ast.parse((path / "__init__.py").read_text())
            )
            assert "import" in said.splitlines()[-1] + said


def test_imports_go_down():
    graph = arrows()
    assert len(graph) > 60 and sum(map(len, graph.values())) > 200
    assert faults(graph) == []


def test_no_circle():
    graphlib.TopologicalSorter(arrows()).prepare()


@pytest.mark.parametrize("name", WITHOUT_BACKEND)
def test_no_backend_is_imported(name):
    for path in (PACKAGE / "experiments" / name).rglob("*.py"):
        for target in imported(path):
            assert target.split(".")[0] not in BACKENDS, (path, target)
            if target.startswith("crl_keras."):
                is_core = not target.startswith(EXPERIMENTS)
                module = target.rpartition(".")[0]
                assert not is_core or module in CORE_WITHOUT_BACKEND, target


def test_no_function_is_longer_than_60_lines():
    """Docstrings left aside, which public functions need long."""
    examples = PACKAGE.parent.glob("examples/*.py")
    long = [
        f"{path.name}, {node.name}: {lines}"
        for path in (*modules().values(), *examples)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and (lines := lines_of_code(node)) > 60
    ]
    assert long == []


def lines_of_code(node):
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is not None:
        lines -= node.body[0].end_lineno - node.body[0].lineno + 1
    return lines


def test_faults_are_found():
    graph = {
        f"{EXPERIMENTS}.data.splits": {f"{EXPERIMENTS}.runs.config"},
        f"{EXPERIMENTS}.measures.scores": {f"{EXPERIMENTS}.data.splits"},
        "crl_keras.losses.focal": {f"{EXPERIMENTS}.words"},
        f"{EXPERIMENTS}.runs.sweep": {f"{EXPERIMENTS}.data.splits"},
    }
    assert len(faults(graph)) == 3
    text = "def f():\n    import torch.nn\n    from keras import ops"
    assert [*imported(PACKAGE, text)] == ["torch.nn", "keras.ops"]


def test_the_door_imports_the_experiments_when_it_is_called():
    """Importing the package then loads none of them."""
    tree = ast.parse((PACKAGE / "comparing.py").read_text())
    at_once = [
        node
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    names = {getattr(n, "module", None) or n.names[0].name for n in at_once}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
    assert any(target.startswith(EXPERIMENTS) for target in arrows()[DOOR])
