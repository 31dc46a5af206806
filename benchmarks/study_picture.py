"""Draw the figure of the README: measures of a study's settings, with 95 % intervals over seeds.

bnn-symm compare configs/digits_study.yaml --out runs/digits_study
python benchmarks/study_picture.py runs/digits_study docs/digits_study.png
"""

import argparse
import json
from pathlib import Path

import pandas

from bnn_symm.report.plots.figures.png import save_png
from bnn_symm.report.plots.studies.measures import measures_figure
from bnn_symm.report.plots.studies.styles import styles_of

PANELS = {
    "gradients_to_target": "gradients to 95 % of the distance",
    "test_nll": "test NLL, nats per point",
    "naive": "barrier, unaligned, nats",
    "aligned": "barrier, aligned, nats",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    settings = json.loads((options.study / "summary.json").read_text())["settings"]
    tables = [pandas.read_parquet(options.study / f"{name}.parquet") for name in ("cells", "pairs")]
    panels = []
    for measure, title in PANELS.items():
        rows = []
        for setting in settings:
            values = setting["measures"].get(measure) or {}
            table = next(table for table in tables if measure in table)
            rows_of_setting = table[table.setting == setting["label"]]
            if (
                measure == "gradients_to_target"
                and rows_of_setting.to_target_censored.astype(bool).any()
            ):
                rows.append({"mean": None, "low": None, "high": None, "values": []})
                continue
            numbers = {key: values.get(key) for key in ("mean", "low", "high")}
            rows.append({**numbers, "values": rows_of_setting[measure].dropna().tolist()})
        panels.append({"title": title, "rows": rows})
    labels = [setting["label"] for setting in settings]
    save_png(
        measures_figure(panels, labels, styles_of([(label, "") for label in labels])),
        options.picture,
    )


if __name__ == "__main__":
    main()
