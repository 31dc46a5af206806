"""A saved spec is loaded unchanged, and a file is believed only as far as it is certified."""

import json

import pytest
import torch
from torch import nn

from bnn_symm.errors import SymmetryError
from bnn_symm.symmetry import load_spec, permutation_spec, save_spec, symmetry_group

from .networks import NETWORKS


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loaded_spec_is_the_derived_one(name, tmp_path):
    build, input_shape, _ = NETWORKS[name]
    torch.manual_seed(0)
    net = build()
    spec = permutation_spec(net, input_shape)
    save_spec(spec, tmp_path / "spec.json")
    assert load_spec(tmp_path / "spec.json", net) == spec


@pytest.fixture
def content(tmp_path) -> dict:
    save_spec(permutation_spec(network()), tmp_path / "spec.json")
    return json.loads((tmp_path / "spec.json").read_text())


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["groups", "0", "size"], "many", r"groups.0.size: Input should be a valid integer"),
        (["groups", "0", "size"], 5, "'0.weight' has 4 units of group '0', expected 5"),
        (["groups", "0", "blocks"], 3, "4 units cannot form 3 equal blocks"),
        (["groups", "0", "parent"], "heads", "no group 'heads' before it"),
        (["groups", "0", "name"], "1", "group '0' has the name '1'"),
        (["groups", "0", "signed"], True, "its units may flip, but no entry flips with them"),
        (["groups", "more"], {"name": "more", "size": 9}, "'more': no tensor has its units"),
        (["axes", "0.bias", 0, 0, "group"], "units", "has units of 'units', which is no group"),
        (["axes", "0.bias", 0, 0, "group"], None, "outputs"),
        (["axes", "0.bias", 0, 0, "outer"], 0, "a segment of no entries"),
        (["num_frozen_units"], -3, "negative"),
        (["axes", "0.bias"], "nothing", "0.bias"),
        (["input_shape"], [7], "cannot be evaluated with it"),
        (["axes", "0.bias", 0, 0, "within"], True, "cannot be evaluated|outputs"),
        (["axes", "0.bias", 0, 0, "inner"], 2, r"shape \(4,\) in the network, \(8,\) in the file"),
        (["axes", "1.bias"], [], "the network has no tensor '1.bias'"),
        (["output_axes", "2.bias"], 1, "no dimension 1 of '2.bias'"),
        (["axes", "0.bias", 0, 0, "scale"], -1, "outputs"),
    ],
)
def test_a_wrong_file_is_refused(content, tmp_path, keys, value, message):
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SymmetryError, match=message):
        load_spec(path, network())


def test_a_file_without_a_parameter_is_refused(content, tmp_path):
    path = tmp_path / "own.json"
    for lacking in ({"groups": {}, "axes": {}, "output_axes": {}}, {}):
        own = content | lacking
        own["axes"].pop("0.bias", None)
        path.write_text(json.dumps(own))
        with pytest.raises(SymmetryError, match="it lacks the parameter"):
            load_spec(path, network())


def test_units_that_no_output_depends_on_are_refused(content, tmp_path):
    class Unread(nn.Sequential):
        def __init__(self):
            super().__init__(*network())
            self.unread = nn.Parameter(torch.zeros(7))

        def forward(self, x):
            return self[2](self[1](self[0](x)))

    group = {"name": "more", "size": 7, "parent": None, "blocks": 1, "signed": True}
    content["groups"]["more"] = group
    content["axes"]["unread"] = [[{"group": "more", "size": 7, "signed": True}]]
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SymmetryError, match="no output depends on unit 0 at 64 random points"):
        load_spec(path, Unread(), (3,))


@pytest.mark.parametrize("number", range(20))
def test_a_subgroup_is_not_taken_for_the_group(content, tmp_path, number):
    """Units can be rotated, which elements of the symmetric group are with a probability of 1/2."""

    class Cyclic(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)

        def forward(self, x):
            units = torch.relu(self.first(x))
            return (units * units.roll(1, -1) ** 2).sum(-1, keepdim=True)

    name = f"units {number}"
    units = [{"group": name, "size": 3}]
    content |= {
        "groups": {name: {"name": name, "size": 3}},
        "axes": {
            "first.weight": [units, [{"group": None, "size": 3}]],
            "first.bias": [units],
        },
        "output_axes": {},
    }
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SymmetryError, match="the spec is wrong"):
        load_spec(path, Cyclic(), (3,))


def test_new_values_show_what_the_present_ones_hide(content, tmp_path):
    """Units that are off at the present values seem to be free."""
    net = network()
    nn.init.constant_(net[0].bias, -20.0)
    content["groups"]["more"] = {"name": "more", "size": 4}
    content["axes"]["0.bias"] = [[{"group": "more", "size": 4}]]
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SymmetryError, match="the spec is wrong"):
        load_spec(path, net)


def test_a_damaged_file_and_another_network_are_refused(content, tmp_path):
    (tmp_path / "damaged.json").write_text("{")
    with pytest.raises(SymmetryError, match="damaged"):
        load_spec(tmp_path / "damaged.json", network())
    with pytest.raises(SymmetryError, match=r"spec.json: '0.weight' has shape \(5, 3\)"):
        load_spec(
            tmp_path / "spec.json",
            nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)),
        )


def test_a_file_by_hand_serves_a_network_that_has_no_rule(content, tmp_path):
    class Sorted(nn.Sequential):
        def forward(self, x):
            units = torch.relu(self[0](x))
            return self[2](units * units.quantile(0.5, dim=1, keepdim=True))

    net = Sorted(*network())
    net.input_shape = (3,)
    with pytest.raises(SymmetryError, match="quantile"):
        permutation_spec(net)
    for axes in content["axes"].values():
        for segment in (segment for axis in axes for segment in axis):
            segment["scale"] = 0
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content))
    assert symmetry_group(net, load_spec(path, net)).order == 24
