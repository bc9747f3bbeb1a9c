from __future__ import annotations

import io

import pytest
from rich.console import Console
from tests.conftest import free_ports
from tests.rpc.test_model_watch import seen
from typer.testing import CliRunner

from camserve_server.cli.app import app
from camserve_server.cli.model_watch import figures
from camserve_server.rpc.model_watch import watch_message
from camserve_server.stores.model_routes import RouteChange, Routes

ROLLED_BACK = RouteChange(8, 1_800_000_000_000, "camserve", "end canary", "canary 3 rolled back: class shift 0.4")


def lines(*arguments, **options):
    output = io.StringIO()
    Console(file=output, width=200).print(figures(watch_message("shapes", seen(*arguments, **options), ROLLED_BACK)))
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_figures_are_lines_that_can_be_read_and_cut():
    shown = lines()
    assert shown[0] == "shapes  revision 7  2027-01-15 08:00:00  last 300 s"
    assert "  canary 3: 5 % of stable by tenant" in shown
    assert any(line.startswith("  guard: last 300 s, min calls 10, max error rate 0.02") for line in shown)
    assert "  last change: 8  2027-01-15 08:00:00  camserve  end canary: canary 3 rolled back: class shift 0.4" in shown
    cut = [line.split() for line in shown]
    assert ["2", "answer", "12", "2", "8", "8", "bee", "60", "%,", "ant", "30", "%"] in cut
    assert ["3", "with", "2", "4", "75", "%", "0.25", "2", "2", "0.75", "-"] in cut
    assert ["error", "rate", "1", "0.187", "1", "waiting"] in cut


def test_a_model_without_a_canary_shows_its_versions():
    shown = lines(routes=Routes({"stable": "2"}), watched=None)
    assert "  no guard: nothing is rolled back" in shown
    assert not any(line.startswith(("limit", "  canary")) for line in shown)


@pytest.mark.parametrize("command", [["watch", "shapes"], ["watch", "shapes", "--once"], ["guard", "shapes"]])
def test_without_a_server_the_commands_say_so(tmp_path, monkeypatch, command):
    monkeypatch.setenv("CAMSERVE_INTERNAL_PORT", str(free_ports(1)[0]))
    told = CliRunner().invoke(app, ["models", *command, "--data-dir", str(tmp_path)])
    assert told.exit_code == 1
    assert "no server answers at 127.0.0.1:" in told.stderr
