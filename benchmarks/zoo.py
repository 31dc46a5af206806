"""Derive and certify the symmetries of many networks of torch and of other libraries.

    python -m benchmarks.zoo [--only NAME ...] [--planted SIZE] [--list] [--markdown]

Needs the dependency group `zoo` (torchvision, timm, transformers, torch_geometric). All weights are
random, nothing is downloaded.

With `--planted`, a random element of the group is applied to random weights of every network of at
most SIZE parameters, and it is `recovered` if alignment by weights finds it exactly. Dropout is off
and batch norm has frozen statistics, as in every fit.
"""

import argparse
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from benchmarks.zoo_networks import NETWORKS
from bnn_symm import BayesianModel, Prior
from bnn_symm.architectures import freeze_batch_norm
from bnn_symm.errors import BnnSymmError
from bnn_symm.formatting import number
from bnn_symm.likelihoods import Categorical
from bnn_symm.symmetry import permutation_spec, symmetry_group
from claims.experiments.groups import is_recovered


@dataclass(frozen=True)
class Row:
    """What the derivation of one network came to.

    Attributes:
        name: name of the network, with its library.
        parameters: number of its parameters.
        log10_order: base-10 logarithm of the order of the group; None without a spec.
        not_searched: number of units that are kept in place without a proof.
        seconds: of the processor, of the derivation with its certificate.
        reason: the message of a refusal.
        recovered: whether a planted element was found; empty if it was not tried.
    """

    name: str
    parameters: int
    log10_order: float | None
    not_searched: int
    seconds: float
    reason: str = ""
    recovered: str = ""

    @property
    def certified(self) -> bool:
        """Return whether there is a spec, since a spec that fails its certificate is an error."""
        return self.log10_order is not None


def derive(name: str, build: Callable[[], tuple[nn.Module, tuple[int, ...]]]) -> Row:
    """Return the row of one network, built from seed 0."""
    torch.manual_seed(0)
    net, shape = build()
    parameters = sum(value.numel() for value in net.parameters())
    start = time.process_time()
    try:
        spec = permutation_spec(net, shape)
    except BnnSymmError as error:
        return Row(name, parameters, None, 0, time.process_time() - start, str(error))
    seconds = time.process_time() - start
    return Row(name, parameters, spec.log10_order, spec.num_frozen_units, seconds)


def recovered(build: Callable[[], tuple[nn.Module, tuple[int, ...]]]) -> bool:
    """Return whether alignment by weights finds a random element of the group exactly."""
    torch.manual_seed(0)
    net, shape = build()
    for module in net.modules():
        for rate in ("p", "drop_prob"):
            if "drop" in type(module).__name__.lower() and hasattr(module, rate):
                setattr(module, rate, 0.0)
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules()):
        net = freeze_batch_norm(net, inputs=torch.randn(4, *shape))
    model = BayesianModel(net, Prior(), Categorical())
    group = symmetry_group(model.net, input_shape=shape)
    flat = torch.randn(model.num_parameters, generator=torch.Generator().manual_seed(1))
    return is_recovered(model, flat, group, seed=0)


def _import_torchvision() -> None:
    """Import torchvision, whose wheel may be built for other devices than torch.

    Then its operators are missing, which none of the networks uses, but the import needs two.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor"
            )
        import torchvision  # noqa: F401


def _outcome(name: str) -> str:
    """Return whether a planted element is recovered, or why that could not be tried."""
    try:
        return "yes" if recovered(NETWORKS[name]) else "no"
    except BnnSymmError as error:
        return f"not fitted: {error}"


def _line(row: Row, *, markdown: bool) -> str:
    order = "" if row.log10_order is None else f"{row.log10_order:,.1f}"
    derived = "yes" if row.certified else "no"
    cells = [
        row.name,
        f"{row.parameters:,}",
        derived,
        derived,
        order,
        f"{row.not_searched:,}",
        f"{row.seconds:.1f}",
        row.recovered,
        row.reason,
    ]
    if markdown:
        return "| " + " | ".join(re.sub(r"\|", "/", cell) for cell in cells) + " |"
    name, *rest, reason = cells
    return f"{name:34}" + " ".join(f"{cell:>12}" for cell in rest) + f"  {reason}"


def main() -> None:
    """Derive the symmetries of the networks that are named, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="parts of names")
    parser.add_argument(
        "--planted", type=int, default=0, metavar="SIZE", help="align up to this many parameters"
    )
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--markdown", action="store_true", help="print a table in Markdown")
    options = parser.parse_args()
    names = [n for n in NETWORKS if not options.only or any(text in n for text in options.only)]
    if options.list:
        print("\n".join(names))
        return
    titles = (
        "network,parameters,derived,certified,log10 order,not searched,seconds,recovered,reason"
    )
    if options.markdown:
        print("| " + " | ".join(titles.split(",")) + " |\n|" + " --- |" * 9)
    else:
        name, *rest, reason = titles.split(",")
        print(f"{name:34}" + " ".join(f"{title:>12}" for title in rest) + f"  {reason}")
    rows = []
    _import_torchvision()
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = derive(name, NETWORKS[name])
            if row.certified and row.parameters <= options.planted:
                row = replace(row, recovered=_outcome(name))
            rows.append(row)
        print(_line(rows[-1], markdown=options.markdown), flush=True)
    share = sum(row.certified for row in rows) / max(len(rows), 1)
    tried = [row.recovered == "yes" for row in rows if row.recovered in ("yes", "no")]
    if tried:
        print(f"\n{sum(tried)} of {len(tried)} planted elements are recovered")
    print(
        f"\n{sum(row.certified for row in rows)} of {len(rows)} networks ({100 * share:.0f} %) are "
        f"derived and certified; {number(sum(row.seconds for row in rows))} s in all"
    )


if __name__ == "__main__":
    main()
