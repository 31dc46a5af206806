"""Events of times and exposures of counts are read from a column and follow their points."""

import numpy as np
import pandas as pd
import pytest
import torch

from bnn_symm.data import Dataset, Preprocessing, load_dataset, load_points
from bnn_symm.errors import ConfigError, InvalidData

ROWS = 40
RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "size": RANDOM.normal(size=ROWS),
        "days": RANDOM.uniform(1, 900, ROWS).round(3),
        "dead": RANDOM.random(ROWS) < 0.6,
        "years": RANDOM.uniform(1, 50, ROWS).round(3),
        "claims": RANDOM.poisson(4, ROWS),
    }
)
TIMES = {"target": "days", "event": "dead", "features": "size", "dtype": torch.float64}
COUNTS = {"target": "claims", "exposure": "years", "features": "size", "dtype": torch.float64}


def read(kind: str, keys: dict, folder) -> Dataset:
    target = keys["target"]
    others = {key: value for key, value in keys.items() if key != "target"}
    if kind == "frame":
        return Dataset.from_frame(FRAME, target, **others)
    if kind in ("arrays", "npz"):
        role = "event" if "event" in keys else "exposure"
        column = FRAME[keys[role]].to_numpy()
        if kind == "arrays":
            given = {role: torch.tensor(column), "dtype": torch.float64}
            return Dataset.from_arrays(FRAME["size"], FRAME[target], **given)
        np.savez(folder / "a.npz", x=FRAME[["size"]], y=FRAME[target], c=column)
        return load_dataset(folder / "a.npz", **{role: "c"}, dtype=torch.float64)
    FRAME.to_csv(folder / "a.csv", index=False)
    return load_dataset(folder / "a.csv", **keys)


@pytest.mark.parametrize("kind", ["csv", "npz", "frame", "arrays"])
def test_events_follow_their_times_which_are_in_units_of_the_time_per_event(kind, tmp_path):
    data = read(kind, TIMES, tmp_path)
    assert (data.task, data.input_shape, data.num_outputs) == ("survival", (1,), 1)
    events = pd.Series(FRAME["dead"].to_numpy(), index=FRAME["days"])
    for part in (data.train, data.validation, data.test):
        days = (data.scaling.y_scale * part.y[:, 0]).numpy().round(3)
        assert part.y[:, 1].tolist() == events[days].astype(float).tolist()
    train = data.train.y
    assert float(train[:, 0].sum()) == pytest.approx(float(train[:, 1].sum()))
    assert data.scaling.y_mean == 0
    # The Jacobian is that of events only.
    expected = np.log(data.scaling.y_scale) * train[:, 1]
    torch.testing.assert_close(data.scaling.log_jacobian(train), expected)


@pytest.mark.parametrize("kind", ["csv", "npz", "frame", "arrays"])
def test_exposures_follow_their_counts_in_units_of_the_exposure_per_count(kind, tmp_path):
    data = read(kind, COUNTS, tmp_path)
    assert (data.task, data.input_shape) == ("count", (1,))
    pairs = {
        (claims, round(years, 3)) for claims, years in zip(FRAME.claims, FRAME.years, strict=True)
    }
    for part in (data.train, data.validation, data.test):
        y = part.y.clone()
        y[:, 1] *= data.scaling.exposure_scale
        assert {(int(claims), round(years, 3)) for claims, years in y.tolist()} <= pairs
    assert float(data.train.y[:, 0].sum()) == pytest.approx(float(data.train.y[:, 1].sum()))
    again = Preprocessing.from_dict(data.preprocessing.to_dict())
    assert again.scaling.exposure_scale == data.scaling.exposure_scale


def test_times_without_a_column_of_events_are_all_seen_and_weights_count():
    weight = RANDOM.integers(1, 4, ROWS)
    keys = {"task": "survival", "test_fraction": 0, "dtype": torch.float64}
    one = Dataset.from_arrays(FRAME["size"], FRAME["days"], weight=weight, **keys)
    assert one.train.y[:, 1].eq(1).all()
    assert one.train.total(one.train.y[:, 0]) == pytest.approx(one.train.num_observations)


def test_other_points_need_events_and_exposures(tmp_path):
    for keys, column in ((TIMES, "dead"), (COUNTS, "years")):
        data = read("frame", keys, tmp_path)
        FRAME.to_csv(tmp_path / "b.csv", index=False)
        part = load_points(tmp_path / "b.csv", data.preprocessing, dtype=torch.float64)
        assert part.y.shape == (ROWS, 2)
        FRAME.drop(columns=column).to_csv(tmp_path / "b.csv", index=False)
        with pytest.raises(InvalidData, match=f"'{column}', which is required here"):
            load_points(tmp_path / "b.csv", data.preprocessing)


def changed(column: str, value) -> pd.DataFrame:
    values = FRAME[column].astype(object).where(FRAME.index != 3, value)
    return FRAME.assign(**{column: values.infer_objects()})


@pytest.mark.parametrize(
    ("keys", "frame", "message"),
    [
        (TIMES, changed("dead", None), "event 'dead': missing value in row 4"),
        (TIMES, changed("dead", 2), r"event 'dead' has the values .*expected 1 or true"),
        (TIMES, FRAME.assign(dead=0), "all 29 times of the training split are censored"),
        (TIMES, changed("days", 0.0), "row 4: got 0, expected a positive time"),
        (TIMES, changed("days", -1.0), "row 4: got -1, expected a positive time"),
        (COUNTS, changed("years", 0.0), "exposure 'years', row 4: got 0, expected a positive"),
        (COUNTS, changed("years", np.inf), "exposure 'years', row 4: got inf .*finite"),
        (COUNTS | {"target": "days"}, FRAME, "expected counts 0, 1, 2"),
    ],
)
def test_wrong_values_are_refused(keys, frame, message):
    others = {key: value for key, value in keys.items() if key != "target"}
    with pytest.raises(InvalidData, match=message):
        Dataset.from_frame(frame, keys["target"], **others)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (TIMES | {"task": "regression"}, "data.event is for data.task=survival"),
        (COUNTS | {"task": "regression"}, "data.exposure is for data.task=count"),
        (TIMES | {"exposure": "years"}, "data.event is for times and data.exposure for counts"),
        (TIMES | {"target": ["days", "claims"]}, "data.event is for one target"),
        (TIMES | {"event": "days"}, "data.event and data.target name one column"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(keys, message):
    others = {key: value for key, value in keys.items() if key != "target"}
    with pytest.raises(ConfigError, match=message):
        Dataset.from_frame(FRAME, keys["target"], **others)
