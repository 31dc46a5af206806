"""Aligning posteriors over permutations of hidden units: pairs, samples, many; and merging what is aligned."""

from bnn_symm.alignment.align import Alignment, align, check_same_parameters

__all__ = ["Alignment", "align", "check_same_parameters"]
