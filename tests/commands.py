"""How tests run the command line: in their own process."""

import warnings

from typer.testing import CliRunner

from kerasdet import cli


def run(*arguments, code=0):
    """Output of `kerasdet ARGUMENTS`, standard output and errors together, after the exit code."""
    with warnings.catch_warnings():
        result = CliRunner().invoke(cli.app, list(map(str, arguments)), env={"COLUMNS": "300"})
    assert result.exit_code == code, (result.output, result.exception)
    return result.output
