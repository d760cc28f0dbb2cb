"""YAML files of ours. YAML lets the last of two equal keys win in silence; here they are an error."""

from pathlib import Path
from typing import Any

import yaml


class BadYaml(Exception):
    """The file is not YAML, or has a key twice. The message names line and reason."""


def load_yaml(path: Path) -> Any:
    """The content of a file. Raises BadYaml, OSError."""
    try:
        return yaml.load(path.read_text("utf-8"), _OneEntryPerKey)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else "?"
        raise BadYaml(f"line {line}: {getattr(error, 'problem', None) or 'not YAML'}") from None


class _OneEntryPerKey(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (key_node, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(problem=f"{key!r} stands twice", problem_mark=key_node.start_mark)
        return super().construct_mapping(node, deep)
