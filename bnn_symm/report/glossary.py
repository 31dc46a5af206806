"""Define the terms of pages once: for tooltips, glossaries of pages, and the site.

To add a term, add a line to `GLOSSARY`. Pages explain it where it occurs.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Term:
    """A term and its meaning.

    Attributes:
        name: As texts write it.
        meaning: In one or two sentences.
        also: Other words for it.
    """

    name: str
    meaning: str
    also: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """Return the anchor of its entry."""
        return f"term-{re.sub('[^a-z0-9]+', '-', self.name.lower()).strip('-')}"


GLOSSARY = (
    Term(
        "accuracy",
        "The share of points whose most probable class is the true one. Higher is better.",
    ),
    Term(
        "aligned weights",
        "Weights after the hidden units of one fit or chain were renumbered to match those of "
        "another, which does not change its function.",
        ("alignment", "aligned over permutations"),
    ),
    Term(
        "asymmetric network",
        "A network in which fixed entries or gates leave no way to exchange hidden units: every "
        "function has one numbering of the units.",
        ("asymmetric networks", "weight_asymmetric", "figlu"),
    ),
    Term(
        "AUC",
        "The probability that a point of a class gets a higher probability of it than a point of "
        "another class; of more than two classes, the mean over them. 1 if they are separated, 0.5 "
        "if predictions are uninformative.",
    ),
    Term(
        "AUROC of errors",
        "The probability that a wrong prediction is less confident than a right one: 1 if doubt "
        "separates the errors, 0.5 if it is uninformative.",
        ("AUROC",),
    ),
    Term(
        "AURC",
        "Area under the risk-coverage curve: the mean error rate when the least confident points "
        "are set aside one by one. Lower is better.",
    ),
    Term(
        "barrier",
        "The maximum, along the straight path between two fits, of the test NLL above the chord "
        "between its ends, in nats per point. It is 0 if all mixtures of the weights are as good.",
        ("barriers",),
    ),
    Term(
        "base rates",
        "Predictions without features: every point gets the frequencies of the classes in the "
        "training split.",
    ),
    Term(
        "block_fixed",
        "A control with as many fixed entries of the same size as the asymmetric network, equal "
        "within blocks of units, so that the units of a block remain exchangeable.",
    ),
    Term(
        "Brier score",
        "The mean squared distance between the predicted probabilities and the true class. Lower "
        "is better.",
    ),
    Term(
        "calibrated",
        "Predicted probabilities are frequencies: of the points with a confidence of 80 %, 80 % "
        "are right, and 90 % of the targets are within their 90 % intervals.",
        ("calibration",),
    ),
    Term(
        "certificate",
        "A check that the generators of the symmetry group leave the function of the network "
        "unchanged at random weights, or that fixed entries exclude every exchange.",
    ),
    Term("chain", "One sequence of draws of a sampler, from its own initial values.", ("chains",)),
    Term(
        "conformal",
        "Of intervals and sets of classes: calibrated on held-out points, so that they contain the "
        "target of a new point with the stated probability, whether the model is right or not.",
    ),
    Term(
        "control",
        "A network that shares one property with the asymmetric network but keeps the symmetry, or "
        "breaks it in another way. An effect that a symmetric control shows as well is not "
        "explained by the symmetry.",
        ("controls",),
    ),
    Term(
        "coverage",
        "The share of targets within their predicted interval; for 90 % intervals it should be "
        "0.9.",
        ("coverage of 50 % intervals", "coverage of 90 % intervals", "coverage of 95 % intervals"),
    ),
    Term(
        "CRPS",
        "Continuous ranked probability score: the distance between a predicted distribution and "
        "the target, in the target's own units. For a single number it is the absolute error. "
        "Lower is better.",
    ),
    Term(
        "ECE",
        "Expected calibration error: the mean over bins of the difference between confidence and "
        "accuracy. Lower is better, but it is above 0 for finitely many points of a calibrated "
        "model.",
        ("expected calibration error",),
    ),
    Term(
        "ELBO",
        "Evidence lower bound: the expected log likelihood minus the KL to the prior, in nats. "
        "Variational inference maximizes it. Higher is better.",
    ),
    Term(
        "epistemic",
        "The part of the uncertainty that is due to finite data, on which the draws of the "
        "posterior disagree; the rest is noise (aleatoric).",
        ("epistemic sd",),
    ),
    Term(
        "error-rate barrier",
        "As a barrier, of the test error rate instead of the NLL.",
        ("error-rate barrier without alignment", "error-rate barrier after alignment"),
    ),
    Term(
        "ESS",
        "Effective sample size: the number of independent draws that determine a mean (bulk) or "
        "the tails as well as these draws do. Higher is better.",
        ("bulk ESS min", "tail ESS min", "effective sample size"),
    ),
    Term(
        "free parameters",
        "Weights and biases that are inferred; fixed entries do not count.",
    ),
    Term(
        "gradient evaluations",
        "Gradients of the log density, of the full data or their equivalent: the work of a fit, "
        "whatever the machine.",
        ("gradients",),
    ),
    Term(
        "init_matched",
        "A control with the initial values of the asymmetric network, in which all entries are "
        "trained. It keeps the symmetry.",
    ),
    Term(
        "KL to the prior",
        "The Kullback-Leibler divergence from the prior to the approximate posterior, in nats: "
        "what the data taught.",
    ),
    Term(
        "logistic regression",
        "A linear model of the log odds of the classes, on the same standardized features: what a "
        "network has to beat.",
    ),
    Term(
        "mutual information",
        "Between class and draw, in nats: how much the draws of the posterior disagree about the "
        "class.",
    ),
    Term(
        "naive",
        "Without alignment: the units keep the numbers that the fits gave them.",
        ("unaligned", "without alignment"),
    ),
    Term("nats", "Units of natural logarithms; 1 nat is 1.44 bits."),
    Term(
        "NLL",
        "Negative log likelihood of the targets under the predicted distribution, in nats per "
        "point. It rewards accuracy and calibration. Lower is better.",
        ("test NLL", "training NLL", "validation NLL", "expected NLL"),
    ),
    Term(
        "objective",
        "What the fit minimizes, in nats: the negative ELBO or the negative log density.",
    ),
    Term("overconfident", "Confidence is above accuracy, or intervals are too narrow."),
    Term(
        "p",
        "The probability of a difference at least this large if there were none; adjusted for the "
        "number of comparisons of a measure.",
        ("p adjusted", "p-value"),
    ),
    Term(
        "parameter_matched",
        "A control with as many free parameters as the asymmetric network, by fewer hidden units. "
        "It keeps the symmetry.",
    ),
    Term(
        "permutation symmetry",
        "Exchanging the hidden units of a layer, with their weights, does not change the function "
        "of a standard network. The posterior therefore has many copies of each mode.",
        ("the symmetry",),
    ),
    Term(
        "PIT",
        "Probability integral transform: the predicted probability of a target not above the true "
        "one. Over points it is uniform for a calibrated model.",
    ),
    Term("plateau", "The level at which the objective of a fit stays from some step on."),
    Term(
        "Poisson regression",
        "A linear model of the logarithm of the rate of a count, on the same standardized "
        "features: what a network has to beat.",
    ),
    Term(
        "R-hat",
        "How much the chains disagree, rank-normalized and split: 1 if they agree. Above about "
        "1.02 they have not mixed.",
        ("R-hat max", "R-hat median"),
    ),
    Term(
        "R2",
        "One less the mean squared error of the predicted mean over the variance of the targets: 1 "
        "if predictions are exact, 0 for the mean of the targets, negative if worse.",
    ),
    Term(
        "raw weights",
        "Weights as the sampler or optimizer numbered the hidden units.",
    ),
    Term(
        "ridge regression",
        "A linear model of the target, on the same standardized features: what a network has to "
        "beat.",
    ),
    Term(
        "RMSE",
        "Root mean squared error of the predicted mean, in the target's own units. Lower is "
        "better.",
    ),
    Term(
        "RPS",
        "Ranked probability score of ordered classes: the sum over classes of the squared "
        "difference between the predicted probability of this class or a lower one and 1 or 0. For "
        "a certain prediction it is the number of classes between it and the truth. Lower is "
        "better.",
    ),
    Term(
        "seed",
        "The number from which all randomness of a fit follows. Fits with equal seeds share the "
        "order of the data, initial values and noise.",
        ("seeds",),
    ),
    Term(
        "log10 of the symmetry group's order",
        "The number of permutations of hidden units that leave the function unchanged, as a power "
        "of ten; 0 if there is only the identity.",
    ),
    Term(
        "time to the target",
        "The work or time until a curve of convergence reaches a fixed level for good; the level "
        "is a fraction of the distance to the best plateau.",
        ("times to the target", "the target"),
    ),
    Term("underconfident", "Accuracy is above confidence, or intervals are too wide."),
)
"""The terms, in alphabetical order of their names except for capitals."""


class TermMarker:
    """Mark terms in the texts of a page, and collect those that occur.

    Attributes:
        used: The terms that were marked, for the glossary of the page.
    """

    def __init__(self) -> None:
        self._by_word: Mapping[str, Term] = {
            word.lower(): own for own in GLOSSARY for word in (own.name, *own.also)
        }
        words = sorted(self._by_word, key=len, reverse=True)
        every = "|".join(map(re.escape, words))
        self._pattern = re.compile(rf"(?<![\w.-])({every})(?![\w-])", re.IGNORECASE)
        self._in_section: set[str] = set()
        self._used: set[str] = set()

    @property
    def used(self) -> list[Term]:
        """Return the marked terms in alphabetical order."""
        return sorted(
            (own for own in GLOSSARY if own.name in self._used), key=lambda own: own.name.lower()
        )

    def begin(self) -> str:
        """Begin a section, in whose sentences each term is marked once.

        Returns:
            Nothing, to be called in a template.
        """
        self._in_section.clear()
        return ""

    def sentence(self, text: str) -> str:
        """Return a text with the terms that are new in this section marked.

        Args:
            text: Plain text.

        Returns:
            HTML, with everything else escaped.
        """
        return "".join(self._parts(text, is_new=True))

    def heading(self, text: str) -> str:
        """Return the heading of a column or row with its terms marked.

        Args:
            text: Plain text.

        Returns:
            HTML, with everything else escaped.
        """
        return "".join(self._parts(text, is_new=False))

    def _parts(self, text: str, *, is_new: bool) -> Iterator[str]:
        start = 0
        for found in self._pattern.finditer(text):
            term = self._by_word[found[0].lower()]
            if is_new and term.name in self._in_section:
                continue
            self._in_section.add(term.name)
            self._used.add(term.name)
            yield escape(text[start : found.start()])
            yield f'<a class="term" href="#{term.anchor}"><abbr title="{escape(term.meaning)}">'
            yield f"{escape(found[0])}</abbr></a>"
            start = found.end()
        yield escape(text[start:])
