"""What runs on a GPU gives what a CPU gives: the checks of benchmarks/smoke.py. And which tests need a GPU."""

import ast
from pathlib import Path

import pytest
import smoke

TESTS = Path(__file__).parent


@pytest.mark.gpu
@pytest.mark.parametrize("name", smoke.CHECKS)
def test_a_gpu_computes_what_a_cpu_does(name):
    found = smoke.CHECKS[name](smoke.GPU)
    assert found.difference <= found.limit


@pytest.mark.gpu
def test_fused_kernels_compute_what_torch_does_at_every_shape_of_a_child():
    rows = {name: smoke.outcome(check, smoke.GPU) for name, check in smoke.kernel_checks(smoke.GPU).items()}
    assert rows and {name: row for name, row in rows.items() if row["result"] != "PASS"} == {}


@pytest.mark.parametrize("name", ["CUDA provider, float16", "IO binding"])
def test_a_check_passes_where_it_should(name):
    row = smoke.outcome(smoke.CHECKS[name], smoke.CPU)
    assert row["result"] == "PASS" and row["difference"] <= row["limit"]


def test_a_check_that_compares_nothing_does_not_pass():
    row = smoke.outcome(smoke.CHECKS["captured run"], smoke.CPU)
    assert row["result"] == "SKIP" and "captures nothing" in row["reason"]


def test_a_wrong_result_fails(monkeypatch):
    """Whatever is wrong: a large difference, one that is no number, or an error."""
    for check in (lambda place: smoke.Found(0.2, 0.1, "void"), lambda place: smoke.Found(float("nan"), 0.1)):
        assert smoke.outcome(check, smoke.CPU)["result"] == "FAIL"

    def broken(place):
        raise RuntimeError("an illegal memory access")

    row = smoke.outcome(broken, smoke.GPU)
    assert row["result"] == "FAIL" and row["reason"] == "RuntimeError: an illegal memory access"


def test_every_shape_of_the_papers_child_is_checked():
    pytest.importorskip("triton")  # comes with torch on Linux alone
    shapes = smoke.kernel_shapes(32, 32, 32)
    assert {shape.kernel for shape in shapes} == {3, 5, 7} and {shape.stride for shape in shapes} == {1, 2}
    assert {(shape.out_channels, shape.side) for shape in shapes if shape.stride == 1} == {(32, 32), (64, 16), (128, 8)}


# The marker


def unmarked(source):
    """The functions of a test file that ask for torch.cuda and do not carry the marker `gpu`.

    A file may carry it as a whole. A test about machines without a GPU may skip where there is one, and a test may
    replace functions of torch.cuda."""
    tree = ast.parse(source)
    if any(ast.unparse(node) == "pytestmark = pytest.mark.gpu" for node in tree.body):
        return []
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and not any("pytest.mark.gpu" in ast.unparse(each) for each in node.decorator_list)
        and any(asks(part) for part in [*node.body, *filter(needs, node.decorator_list)])
    ]


def needs(decorator):
    """Whether a decorator is more than "skip where there is a GPU"."""
    return not ast.unparse(decorator).startswith("pytest.mark.skipif(torch.cuda.is_available()")


def asks(tree):
    """Whether code reads a name of torch.cuda, or names its device to torch."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            if ast.unparse(node.value) == "torch.cuda" or (node.attr == "cuda" and ast.unparse(node.value) != "torch"):
                return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "to":
            if any(isinstance(value, ast.Constant) and str(value.value).startswith("cuda") for value in node.args):
                return True
    return False


@pytest.mark.parametrize(
    "code",
    [
        "@pytest.mark.skipif(not torch.cuda.is_available(), reason='')\ndef test(): pass",
        "def test():\n    network.to('cuda:0')",
        "def test():\n    x = torch.zeros(3).cuda()",
        "@pytest.fixture\ndef stream():\n    return torch.cuda.Stream()",
    ],
)
def test_who_asks_for_a_gpu_is_found(code):
    assert len(unmarked(code)) == 1
    assert unmarked(f"@pytest.mark.gpu\n{code}") == unmarked(f"pytestmark = pytest.mark.gpu\n{code}") == []


@pytest.mark.parametrize(
    "code",
    [
        "@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')\ndef test(): pass",
        "def test(monkeypatch):\n    monkeypatch.setattr(torch.cuda, 'device', None)",
        "def test():\n    torch.cuda.synchronize = fails",
    ],
)
def test_who_does_without_one_needs_no_marker(code):
    assert unmarked(code) == []


def test_every_test_that_asks_for_a_gpu_carries_the_marker():
    files = list(TESTS.rglob("test_*.py"))
    assert len(files) > 40
    found = {path.name: unmarked(path.read_text(encoding="utf-8")) for path in files}
    assert {name: functions for name, functions in found.items() if functions} == {}
