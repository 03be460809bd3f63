"""What the wheel holds, who imports whom, and the names that are promised."""

import ast
import inspect
import json
import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer.main
import yaml

import nasnet_zoo
from nasnet_zoo.arch.cost import peak_values
from nasnet_zoo.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TREES = {"nasnet_zoo": "nasnet_zoo", "search": "nasnet_zoo.search", "export": "nasnet_zoo.export"}  # folder: package


def modules(folder):
    """The files of a tree, each with its package's name."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield path, ".".join([TREES[folder], *path.parent.relative_to(ROOT / folder).parts])


def imported(path, package):
    """The absolute names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_the_wheel_takes_every_package_and_all_data():
    folders = {package: path.parent for folder in TREES for path, package in modules(folder) if path.stem == "__init__"}
    tools = PROJECT["tool"]["setuptools"]
    assert set(tools["packages"]) == set(folders)
    files = {path for folder in TREES for path in (ROOT / folder).rglob("*") if path.is_file()}
    patterns = [(package, pattern) for package, named in tools["package-data"].items() for pattern in named]
    named = {path for package, pattern in patterns for path in folders[package].glob(pattern) if path.is_file()}
    assert {path for path in files if path.suffix != ".py" and "__pycache__" not in path.parts} == named
    assert ROOT / "nasnet_zoo" / "py.typed" in named
    assert ROOT / "search" / "report" / "templates" / "report.html.j2" in named


def test_what_a_release_needs_is_there():
    for name in ("LICENSE", "NOTICE", "CHANGELOG.md", "MODEL_CARD.md", "README.md", ".ci/run"):
        assert (ROOT / name).stat().st_size > 100
    assert PROJECT["project"]["requires-python"] == ">=3.11" and "torch>=2.11" in PROJECT["project"]["dependencies"]


# The rooms of nasnet_zoo/ from the ground up: a room imports from those before it, and from itself.
ROOMS = (
    *("errors", "util", "arch", "registry", "models", "lookup", "data", "networks", "convert", "weights", "training"),
    *("__init__", "cli"),
)


def files_of(folders):
    """Every module of some trees: its name, its file and what it imports of the project, wherever in the file."""
    found = {}
    for folder in folders:
        for path, package in modules(folder):
            name = package if path.stem == "__init__" else f"{package}.{path.stem}"
            found[name] = (path, package)
    graph = {}
    for name, (path, package) in found.items():
        targets = set()
        for target in imported(path, package):
            while target and target not in found:
                target = target.rpartition(".")[0]
            if target and target != name:
                targets.add(target)
        graph[name] = targets
    return found, graph


def test_nothing_in_the_zoo_imports_from_a_room_above_its_own():
    found, graph = files_of(["nasnet_zoo"])

    def room(name):
        first = (name.split(".") + ["__init__"])[1]
        return "cli" if first == "__main__" else first  # which only runs the command line

    assert {room(name) for name in found} == set(ROOMS) and len(ROOMS) + 1 <= 14  # and assets
    for name, targets in graph.items():
        for target in targets - {"nasnet_zoo"}:
            assert ROOMS.index(room(target)) <= ROOMS.index(room(name)), f"{name} imports {target}"


def test_no_modules_import_each_other_in_a_circle():
    """Imports inside functions and for type checkers count too. A package's own file only hands names on, or registers:
    what stands in its folder does not wait for it."""
    found, graph = files_of(TREES)
    faces = {name for name, (path, _) in found.items() if path.stem == "__init__"}
    state = {}

    def visit(name, path):
        if state.get(name) == "done" or name in faces:
            return
        assert name not in path, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        for target in sorted(graph[name]):
            visit(target, [*path, name])
        state[name] = "done"

    for name in graph:
        visit(name, [])


def test_data_about_architectures_needs_no_torch():
    for path, package in modules("nasnet_zoo"):
        if path.is_relative_to(ROOT / "nasnet_zoo" / "arch"):
            assert not [name for name in imported(path, package) if name.split(".")[0] == "torch"], path


def test_json_from_outside_goes_through_the_one_reader_that_bounds_its_depth():
    own = {"checks.py": 1, "registry.py": 1, "pretrained.py": 1}  # the reader itself; two read files of the package
    found = {}
    for folder in TREES:
        for path, _ in modules(folder):
            text = path.read_text(encoding="utf-8").replace("json.loads(json.dumps(", "")
            if count := len(re.findall(r"\bjson\.loads?\(|validate_json\((?!json\.dumps)", text)):
                found[path.name] = count
    assert found.items() <= own.items()


def test_a_function_and_a_module_never_share_a_promised_name():
    for package in (nasnet_zoo, nasnet_zoo.search, nasnet_zoo.export):
        folder = Path(package.__file__).parent
        names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
        functions = {name for name in package.__all__ if not inspect.ismodule(getattr(package, name))}
        assert not names & functions, f"{package.__name__}: {names & functions}"


def test_only_the_files_of_a_kind_name_it():
    """What dispatches on a config's kind asks the registry."""
    for folder in TREES:
        for path, _ in modules(folder):
            if path.stem != "cells" and "report" not in path.parts:  # which has a column of that name
                assert '"cell"' not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("folder", TREES)
def test_the_zoo_imports_neither_search_nor_export_and_they_not_each_other(folder):
    forbidden = {package for other, package in TREES.items() if other not in (folder, "nasnet_zoo")}
    for path, package in modules(folder):
        if path.parent == ROOT / "nasnet_zoo" / "cli" or path == ROOT / "nasnet_zoo" / "__init__.py":
            continue  # the command line alone knows all three
        upwards = [name for name in imported(path, package) if any(f"{name}.".startswith(f"{f}.") for f in forbidden)]
        assert not upwards, f"{path} imports {upwards}"


def test_every_public_name_is_there():
    promised = {"load", "create", "list_models", "info", "save", "convert", "train", "search", "export"}
    promised |= {"Network", "ZooError", "read_genotype"}
    assert promised <= set(nasnet_zoo.__all__)
    assert all(getattr(nasnet_zoo, name) is not None for name in nasnet_zoo.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = nasnet_zoo.no_such_name


def test_the_readme_runs_what_there_is():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    imports = r"from ([\w.]+) import (.+)"
    for name in re.findall(r"nasnet_zoo\.(\w+)", re.sub(imports, "", "".join(snippets))):
        assert name in nasnet_zoo.__all__
    for module, names in re.findall(imports, "".join(snippets)):
        assert all(hasattr(import_module(module), name.strip()) for name in names.split(","))
    for link in re.findall(r"\]\(([^)#]+)\)", readme):
        assert link.startswith("http") or (ROOT / link).exists(), link


def recipes():
    """The Makefile's targets, each with its lines."""
    parts = re.split(r"^([\w-]+):(?!=).*\n", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def test_the_commands_in_the_readme_have_the_options_it_gives_them():
    commands = typer.main.get_command(app).commands
    rows = re.findall(r"^\| `nasnet-zoo (\w+)(.*)\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 12
    for name, text in rows:
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text)) <= options, name


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", ".ci/run", ".pre-commit-config.yaml"])
def test_what_is_said_to_be_made_or_opened_is_there(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    made = re.findall(r"(?:^ *|`)make ([a-z][\w-]*)", text, re.MULTILINE)
    assert made and set(made) <= set(recipes())
    for path in re.findall(r"(?<![\w./-])(?:tests|benchmarks|docs|nasnet_zoo|search|export|tools)/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path


def test_the_workflow_does_what_lint_and_test_do_on_every_python_that_is_supported():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    said = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    made = {name: re.findall(r"\$\(BIN\)/(?:python -m )?(.+)", lines) for name, lines in recipes().items()}
    assert set(PROJECT["project"]["optional-dependencies"]) >= {"dev"}
    assert said == {name: ['pip install -e ".[dev]"', *made[name]] for name in ("lint", "test")}
    versions = [c.split()[-1] for c in PROJECT["project"]["classifiers"] if "Python :: 3." in c]
    assert jobs["test"]["strategy"]["matrix"]["python"] == versions
    for step in (step for job in jobs.values() for step in job["steps"] if "with" in step):
        assert step["with"]["python-version"] in (*versions, "${{ matrix.python }}")
        assert (ROOT / step["with"]["cache-dependency-path"]).is_file()


def test_the_hooks_are_what_lint_runs():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    local = [hook["entry"] for each in repositories if each["repo"] == "local" for hook in each["hooks"]]
    linted = recipes()["lint"].replace("$(BIN)", ".venv/bin").split("\n")
    assert len(local) == 3 and all(any(line.strip().startswith(entry) for line in linted) for entry in local)


def test_the_figures_of_fidelity_md_are_the_benchmarks():
    text = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    results = {path.stem: json.loads(path.read_text()) for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    fidelity, loading = results["fidelity"], results["loading"]
    assert re.findall(r"\| (\d\.\de-\d\d) \|", text) == [f"{d:.1e}" for d in fidelity["differences"].values()]
    assert f"{fidelity['timm']:.1e}" in text and f"{fidelity['cifar_6@2304_parameters'] / 1e6:.1f} M" in text
    assert {row["model"] for row in fidelity["counts"]} == set(nasnet_zoo.list_models())
    for row in fidelity["counts"]:
        model = nasnet_zoo.info(row["model"])
        assert (model.cost.parameters, model.cost.multiply_adds) == (row["parameters"], row["multiply_adds"])
        stated = f"{row['published_parameters'] / 1e6:.1f} M" if row["published_parameters"] else "-"
        assert f"| {row['model']} | {row['parameters']:,} | {stated} | {row['multiply_adds']:,} |" in text
    for row in results["forward"]["rows"]:
        ours, theirs = 1000 * row["ours"], 1000 * row["timm"]
        assert f"| {row['batch']} | {ours:.0f} ms | {theirs:.0f} ms | {row['ratio']:.2f} |" in text
    seconds, peak = loading["seconds"], loading["peak_mib"]
    assert f"| load | {seconds['load']:.3f} s | {seconds['timm']:.3f} s | {loading['ratio']:.2f} |" in text
    assert f"{peak['load']:.0f} MiB, {peak['load'] / loading['weights_mib']:.2f} x" in text
    assert f"{loading['import_seconds']:.3f} s" in text


def test_the_figures_of_deploy_md_are_the_benchmarks():
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    said = {
        ("nasnet-a-large", "timm"): "large is {:.2f} times as fast as timm's export",
        ("nasnet-a-large", "unfused"): "export and {:.2f} times as fast as unfused",
        ("nasnet-a-mobile", "unfused"): "mobile is {:.2f} times as fast as unfused",
        ("nasnet-a-mobile", "torch_onnx"): "{:.2f} times as fast as what torch's exporter makes of the same network",
        ("nasnet-a-mobile", "eager"): "{:.2f} times as fast as torch.",
    }
    folder = ROOT / "benchmarks" / "results"
    results = json.loads((folder / "inference.json").read_text())
    assert set(results["fidelity"]) == set(nasnet_zoo.list_models())
    for name, row in results["fidelity"].items():
        assert f"| {name} | {row['fixed']:.1e} | {row['dynamic']:.1e} |" in text and row["same_bytes_twice"]
        assert max(row["fixed"], row["dynamic"]) <= 1e-5
    for row in results["precision"]["cifar"].values():
        assert f"| {100 * row['top1']:.2f} % | {100 * row['same_class_as_fp32']:.2f} %" in text and row["finite"]
    for row in results["speed"]:
        assert f"| {row['p50']:.1f} | {row['fastest']:.1f} | {row['mebibytes']:.0f} | {row['share']:.0%} |" in text
    ms = {(row["model"], row["precision"], row["contender"]): row["p50"] for row in results["speed"]}
    for (name, contender), sentence in said.items():
        ratio = ms[name, "fp32", contender] / ms[name, "fp32", "nasnet_zoo"]
        assert sentence.format(ratio) in text.replace("\n", " ")
    large = [ms["nasnet-a-large", precision, "nasnet_zoo"] for precision in ("fp32", "int8")]
    assert "large from {:.0f} to {:.0f} ms, {:.2f} times as fast".format(*large, large[0] / large[1]) in text
    over_timm = [ms["nasnet-a-large", "fp32", "timm"] / each for each in large]
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    assert "{:.2f} times as fast as timm's export of it, and {:.2f} times in int8".format(*over_timm) in readme
    for name, rows in results["fusions"].items():
        for label, row in rows.items():
            assert f"| {name} | {label} | {row['ms']:.1f} | {row['against_all']:.3f} |" in text
    cost = results["export"]
    assert f"takes {cost['seconds']:.1f} s" in text and f"{cost['mebibytes'] / cost['weights']:.2f} times" in text
    environments = json.loads((folder / "environments.json").read_text())
    assert environments["without_torch"]["same_top5"] and environments["oldest"] in text


def test_the_memory_in_search_md_is_the_benchmarks():
    text = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    rows = json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text())["rows"]
    assert len(rows) == 4
    for row in rows:
        predicted, measured, config = (
            row["predicted_bytes"],
            row["measured_bytes"],
            nasnet_zoo.info(row["model"]).config,
        )
        assert predicted == 4 * peak_values(config.plan, tuple(row["size"])) and abs(predicted / measured - 1) < 0.01
        stated = f"{predicted / 1e6:.2f} MB | {measured / 1e6:.2f} MB"
        assert f"| {row['model']} | {row['size'][0]} | {stated} |" in text


def test_the_figures_of_architecture_md_are_the_benchmarks():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "benchmarks" / "results" / "unchanged.json").read_text())
    later = {"quick-ppo-cifar"}  # models that the earlier commit did not have
    assert results["different"] == {} and results["models"] == len(set(nasnet_zoo.list_models()) - later)
    before, after = results["accuracy"]
    assert before == after and f"({100 * after['top1']:.2f} %)" in text
    for name, row in results["seconds"].items():
        times = f"{1000 * row['before']:.0f} ms | {1000 * row['after']:.0f} ms | {row['median']:.2f}"
        assert f"| {name} | {times} |" in text


def test_the_figures_of_predict_md_are_the_benchmarks():
    text = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8").replace("\n", " ")
    result = json.loads((ROOT / "benchmarks" / "results" / "predicting.json").read_text())
    seconds = result["seconds"]
    said = f"{result['photos']} photos take the command {seconds['command']:.1f} s and the function "
    said += f"{seconds['function']:.1f} s; without the start of the command, {seconds['command, one photo']:.1f} s"
    assert said in text and f"{result['ratio']:.2f} times as long" in text and result["ratio"] <= 1.3
    assert f"from {min(result['ratios']):.2f} to {max(result['ratios']):.2f}" in text


def test_the_figures_of_training_md_are_the_benchmarks():
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").replace("\n", " ")
    streaming = json.loads((ROOT / "benchmarks" / "results" / "streaming.json").read_text())
    memory, speed = streaming["memory"], streaming["speed"]
    held = [point["main"] for point in memory["mib"]]
    one, two = memory["main_given_back_mib"]
    assert abs(two - one) < 10 and f"{one:.0f} MiB in use after both epochs" in text
    assert f"{min(held[3:]):.0f} to {max(held):.0f} MiB held in either" in text
    assert memory["growth_mib"]["workers"] < 5 and "workers within 5 MiB" in text
    rates = speed["pictures_per_second"]
    assert f"| {rates['ours']}; torchvision doing the same {rates['torchvision on tensors']}" in text
    assert f"({speed['ratio']:.2f} x" in text and speed["ratio"] >= 1
    tuned = json.loads((ROOT / "benchmarks" / "results" / "finetuning.json").read_text())
    for way, said in (("finetune", "% of the 500 validation pictures"), ("scratch", "%")):
        values = [100 * value for value in tuned["top1"][way]]
        assert f"{sum(values) / 3:.2f} {said} ({min(values):.1f} to {max(values):.1f})" in text
    assert len(values) == 3 and f"{100 * tuned['difference']:.1f} points less" in text and tuned["difference"] > 0
    steps = json.loads((ROOT / "benchmarks" / "results" / "training_speed.json").read_text())["steps"]
    for model, row in steps.items():
        ways = row["ways"]
        assert f"{model} at {row['batch']} pictures a step {ways['ours']['to_plain']:.2f} x" in text
        own, views = (ways[way]["steps_per_second"] for way in ("ours", "ours with views"))
        assert f"{model} {own / views:.2f} x" in text and own > views
    compiled = steps["nasnet-a-cifar-small"]["with compiled"]
    ours, plain = (compiled[f"{way} compiled"]["to_plain"] for way in ("ours", "plain"))
    assert f"| ours {ours:.2f} x, the plain one {plain:.2f} x: **without it is the better way" in text and ours < 1
    on_gpu = json.loads((ROOT / "benchmarks" / "results" / "training_speed_gpu.json").read_text())["steps"]
    for model, row in on_gpu.items():
        ours, plain = (row["ways"][way]["steps_per_second"] for way in ("ours", "plain"))
        assert f"{model} at {row['batch']}" in text and f"{ours:.1f}" in text and f"{plain:.1f}" in text
        assert f"**{row['ways']['ours']['to_plain']:.2f} x**" in text
