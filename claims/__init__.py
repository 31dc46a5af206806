"""A ledger of the claims of papers on the symmetries of weight space, judged with controls.

    python -m claims list
    python -m claims run lim_w_asymmetric_is_connected
    python -m claims run --all --runs runs/claims
    python -m claims page

A claim (`ledger/NAME.yaml`) is a sentence of a paper in our words, an experiment, the effect that
the sentence predicts, the range in which it is expected, and controls. This is fixed before the
experiment runs: a result (`results/NAME.json`) stores a hash of it, and a result of another rule
does not count. An experiment (`experiments/NAME.yaml`, a study, or `experiments/NAME.py`, a module
with `measure(replicate, runs)`) gives rows: a setting, a seed or a pair of seeds, and measures.
Several claims may share it. It resumes, and repeats nothing.

The flow is `claim` (what is claimed) -> `rows` (what was measured) -> `judgement` (the verdict)
-> `page` (`docs/claims.md`).
"""
