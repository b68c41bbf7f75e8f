"""The shipped suite on every partitioner that ships, and on one that a user could have written."""

from __future__ import annotations

import ast
import inspect
import textwrap

from glintpy.partitioning import CyclicPartitioner, Partitioner, RangePartitioner
from glintpy.testing.partitioners import PartitionerTests, TablePartitioner, scattered


class TestRange(PartitionerTests):
    def make(self, num_keys: int, num_partitions: int) -> Partitioner:
        return RangePartitioner(num_keys, num_partitions)


class TestCyclic(PartitionerTests):
    def make(self, num_keys: int, num_partitions: int) -> Partitioner:
        return CyclicPartitioner(num_keys, num_partitions)


class TestTable(PartitionerTests):
    def make(self, num_keys: int, num_partitions: int) -> Partitioner:
        return scattered(num_keys, num_partitions)


def test_the_documented_example_is_the_class_tested_here() -> None:
    documentation = inspect.getdoc(Partitioner) or ""
    _, _, after = documentation.partition("::\n\n")
    lines: list[str] = []
    for line in after.splitlines():
        if line and not line.startswith(" "):
            break
        lines.append(line)
    example = textwrap.dedent("\n".join(lines))
    assert _without_docstrings(example) == _without_docstrings(inspect.getsource(TablePartitioner))


def _without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)
