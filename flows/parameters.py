"""Parameter types that flows share: what the UI offers as a choice, the command line as an option."""

from __future__ import annotations

import argparse
from typing import Annotated

from pydantic import Field

from pipeline import run_spec
from pipeline.layout import PROJECT

ROOT_PARAMS = "params.yaml"


def params_files() -> list[str]:
    """params.yaml of every scale, as seen from the project root; the root's own first."""
    scales = sorted(path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("scales/*/params.yaml"))
    return [ROOT_PARAMS, *scales]


ParamsFile = Annotated[
    str,
    Field(
        title="Scale",
        description="params.yaml is the scale for two CPU cores; scales/<name>/params.yaml are the others.",
        json_schema_extra={"enum": params_files()},
    ),
]


def _datasets() -> list[str]:
    """No names where the file can not be used: what is wrong with it is said by the flow, which reads it as well."""
    try:
        return list(run_spec.load(PROJECT / ROOT_PARAMS).datasets)
    except run_spec.ParamsError:
        return []


DatasetName = Annotated[
    str,
    Field(
        title="Dataset",
        description="A module of pipeline/datasets.",
        json_schema_extra={"enum": _datasets()},
    ),
]


def command_line(module: str, description: str | None) -> argparse.ArgumentParser:
    """Parser of a flow's command line, with `--params`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", default=ROOT_PARAMS, help="params file; decides the scale (default: %(default)s)")
    return parser
