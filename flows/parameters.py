"""Parameter types that flows share: what the UI offers as a choice, the command line as an option."""

from __future__ import annotations

import argparse
from typing import Annotated, Any

from pydantic import Field

from pipeline import run_spec
from pipeline.layout import PROJECT

ROOT_PARAMS = "params.yaml"


def shown(description: str, title: str | None = None, choices: list[str] | None = None, **limits: Any) -> Any:
    """A field whose title (the parameter's name if not given) and description the form in the UI shows.

    Prefect overwrites a field's own with the parameter's name and with nothing; the schema's extras it keeps.
    """
    extra: dict[str, Any] = {"title": title, "description": description, "enum": choices}
    return Field(json_schema_extra={key: value for key, value in extra.items() if value is not None}, **limits)


def params_files() -> list[str]:
    """params.yaml of every scale, as seen from the project root; the root's own first."""
    scales = sorted(path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("scales/*/params.yaml"))
    return [ROOT_PARAMS, *scales]


ParamsFile = Annotated[
    str,
    shown(
        "params.yaml is the scale for two CPU cores; scales/<name>/params.yaml are the others.", "Scale", params_files()
    ),
]


def _datasets() -> list[str]:
    """No names where the file can not be used: what is wrong with it is said by the flow, which reads it as well."""
    try:
        return list(run_spec.load(PROJECT / ROOT_PARAMS).datasets)
    except run_spec.ParamsError:
        return []


DatasetName = Annotated[str, shown("A module of pipeline/datasets.", "Dataset", _datasets())]
DatasetNotVideos = Annotated[
    DatasetName | None, shown("A module of pipeline/datasets, or none for own videos.", "Dataset")
]


def command_line(module: str, description: str | None) -> argparse.ArgumentParser:
    """Parser of a flow's command line, with `--params`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", default=ROOT_PARAMS, help="params file; decides the scale (default: %(default)s)")
    return parser
