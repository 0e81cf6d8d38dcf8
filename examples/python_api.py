"""From videos to a report in Python: python examples/python_api.py VIDEOS (with texts)."""

import sys

from mlalign.align import OptimiserConfig, RunConfig, fit
from mlalign.evaluate import EvaluationConfig, evaluate, report
from mlalign.extract import ExtractConfig, FeatureStore, extract


def main(videos: str) -> None:
    print(extract(videos, "cache", ExtractConfig(backbone="tiny")).line())
    test = FeatureStore.open("cache").split("test")
    print(test.clip_features.shape, test.text_features.dtype)
    run = fit("cache", "run", RunConfig(optimiser=OptimiserConfig(epochs=5)))
    print(run.metrics, run.encode_texts(test.text_features).shape)
    evaluation = evaluate("cache", run, EvaluationConfig(bootstrap_samples=200))
    for row, scores in evaluation.summaries.items():
        print(row, scores[0].task, f"R@1 {scores[0].metrics['R@1'].interval.value:.1f}")
    print(report(evaluation, "report"))


if __name__ == "__main__":  # decoding processes import this file
    main(sys.argv[1])
