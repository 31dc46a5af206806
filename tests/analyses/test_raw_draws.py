"""Diagnosis of external draws without data and without a network."""

import json
import warnings

import numpy as np
import pytest

from bnn_symm.analyses.raw_draws import diagnose_draws
from bnn_symm.io.atomic import json_text
from bnn_symm.report.text.mixing import mixing_text


def saved(path, values, **stats):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz

        arviz.from_dict(
            posterior={"w": values, "b": values[..., 0]}, sample_stats=stats or None
        ).to_netcdf(str(path), engine="h5netcdf")
    return path


@pytest.mark.parametrize(("copies", "usable"), [(False, None), (True, False)])
def test_views_that_need_no_data(tmp_path, copies, usable):
    values = np.random.default_rng(0).normal(size=(4, 500, 3))
    if copies:
        values[3] = values[0]
    path = saved(tmp_path / "draws.nc", values, diverging=np.zeros((4, 500), dtype=bool))
    content = diagnose_draws([path])
    mixing = content["mixing"]
    assert mixing["usable"] is usable
    assert mixing["raw"]["status"] == ("no evidence" if copies else "pass")
    assert mixing["chainwise"]["status"] == "pass"
    assert mixing["copies"]["num_distinct"] == (3 if copies else 4)
    assert mixing["sampler"]["divergences"] == [0, 0, 0, 0]
    assert mixing["function"] is mixing["aligned"] is content["calibration"] is None
    assert json.loads(json_text(content))["runs"] == [str(path)]
    assert "raw weights" in mixing_text(mixing)


def test_divergences_decide_without_a_network_too(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 100, 3))
    diverging = np.random.default_rng(0).uniform(size=(2, 100)) < 0.1
    content = diagnose_draws([saved(tmp_path / "draws.nc", values, diverging=diverging)])
    assert content["mixing"]["usable"] is False
    assert "diverged" in content["mixing"]["conclusion"]
