"""Settings that note which of them are read."""

import ml_collections
import pytest

from utils.recorded_settings import FrozenRecordedSettings, RecordedSettings, freeze

VALUES = {"lr": 1e-3, "alpha": 2.0, "widths": (8, 8)}


@pytest.fixture(params=[RecordedSettings, FrozenRecordedSettings])
def kind(request):
    return request.param


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda config: config.lr, {"lr"}),
        (lambda config: config["lr"], {"lr"}),
        (lambda config: config.get("lr", 1.0), {"lr"}),
        (lambda config: "lr" in config, set()),
        (lambda config: list(config), set()),
        (lambda config: freeze(config, size=1), set()),
        (lambda config: freeze(config, size=1).alpha, {"alpha"}),
        (lambda config: dict(config), set(VALUES)),
        (lambda config: dict(**config), set(VALUES)),
        (lambda config: config.items(), set(VALUES)),
        (lambda config: config.values(), set(VALUES)),
        (lambda config: config.to_dict(), set(VALUES)),
        (lambda config: config.copy_and_resolve_references(), set(VALUES)),
        (ml_collections.ConfigDict, set(VALUES)),
        (ml_collections.FrozenConfigDict, set(VALUES)),
    ],
)
def test_what_is_read_is_noted_and_what_is_taken_away_counts_as_read(kind, use, expected):
    reads = set()
    use(kind(VALUES, reads))
    assert reads == expected


def test_frozen_ones_equal_none_but_those_of_the_same_record():
    reads = set()
    first, second = (FrozenRecordedSettings(VALUES, reads) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != FrozenRecordedSettings(VALUES, set())
    assert first != FrozenRecordedSettings(VALUES | {"lr": 1.0}, reads)
    assert first != ml_collections.FrozenConfigDict(VALUES)
    assert reads == set()


def test_settings_without_a_record_freeze_as_ever():
    frozen = freeze(ml_collections.ConfigDict(VALUES), size=1)
    assert type(frozen) is ml_collections.FrozenConfigDict
    assert frozen.to_dict() == VALUES | {"size": 1}
