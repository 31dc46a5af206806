"""Score predictions: proper scores, ranking, leave-one-out, shifts and out-of-distribution points.

Reading order: `scores`, `score_intervals`, `point_predictions`, `classification`, `regression`,
`ranking`, `class_averages`, `baselines`, `gradient_boosting`, `standing`, `loo`,
`out_of_distribution`, `shift_curves`.
"""
