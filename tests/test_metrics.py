import dataclasses
import json
import math
import subprocess
import sys

import pytest

from tests.processes import REPOSITORY
from utils.errors import UserError
from utils.metrics import Panel, Signature


def test_a_panel_survives_json():
    panel = Panel("loss (%)", "critic/loss", "log", reference=1.0, factor=100.0)
    assert Panel(**json.loads(json.dumps(dataclasses.asdict(panel)))) == panel


def test_an_unknown_scale_is_refused():
    with pytest.raises(UserError, match="unknown scale 'logarithmic'; choose linear or log"):
        Panel("loss", "critic/loss", "logarithmic")


def test_a_signature_shows_where_every_bound_is_crossed():
    signature = Signature("stuck", "help it", above={"alpha": 1e4}, below={"ratio": 0.1})
    assert signature.shows_in({"alpha": 2e4, "ratio": 0.05, "other": 1.0})
    assert not signature.shows_in({"alpha": 2e4, "ratio": 0.2})
    assert not signature.shows_in({"alpha": 1.0, "ratio": 0.05})
    assert not signature.shows_in({"alpha": 1e4, "ratio": 0.05})  # at the bound, not above it
    assert not signature.shows_in({"alpha": 2e4, "ratio": 0.1})


def test_a_row_that_lacks_a_metric_does_not_show_the_failure():
    signature = Signature("stuck", "help it", above={"alpha": 1e4}, below={"ratio": 0.1})
    assert not signature.shows_in({"alpha": 2e4})
    assert not signature.shows_in({"ratio": 0.05})
    assert not signature.shows_in({"alpha": 2e4, "ratio": math.nan})
    assert not signature.shows_in({})


def test_a_signature_without_bounds_is_refused():
    with pytest.raises(UserError, match="'stuck' has no bound"):
        Signature("stuck", "help it")


def test_metrics_are_light_to_import():
    code = (
        "import sys, utils.metrics; sys.exit(bool({'numpy', 'matplotlib', 'jax'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
