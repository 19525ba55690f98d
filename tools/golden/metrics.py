"""The measures of the originals, which have no gradient."""

import numpy as np
import torch

from golden.recorder import Recorder
from golden.sources import Sources, packaged, packaged_file, stubbed

TORCH = {"torch": torch, "np": np}


def record(sources: Sources) -> None:
    golden = Recorder("metrics", seed=20244)
    paired(golden)
    many(golden)
    labelled(golden)
    neighbours(golden, sources)
    golden.save()


def paired(golden: Recorder) -> None:
    path, name = "open_clip_train/train.py", "get_clip_metrics"
    measure = packaged_file("open_clip_torch", path, [name], TORCH)[name]
    a = golden.normal(24, 5)
    inputs = {"a": a, "b": a + 1.5 * golden.normal(24, 5)}
    found = measure(*map(torch.tensor, inputs.values()), 1.0)
    names = ("mean_rank", "median_rank", "R@1", "R@5", "R@10")
    for direction in ("image_to_text", "text_to_image"):
        value = np.array([found[f"{direction}_{name}"] for name in names])
        golden.put(direction, packaged("open_clip_torch", f"{path}:{name}"), value, inputs=inputs)


def many(golden: Recorder) -> None:
    path, name = "clip_benchmark/metrics/zeroshot_retrieval.py", "recall_at_k"
    recall = packaged_file("clip-benchmark", path, [name], TORCH)[name]
    positives = golden.rng.random((9, 12)) < 0.2
    positives[:, 3] |= ~positives.any(axis=1)
    inputs = {"a": golden.normal(9, 4), "b": golden.normal(12, 4)}
    scores = torch.tensor(inputs["a"] @ inputs["b"].T)
    value = np.stack([recall(scores, torch.tensor(positives), k).numpy() for k in (1, 3, 5)])
    source = packaged("clip-benchmark", f"{path}:{name}")
    golden.put("true_recall", source, value, inputs=inputs, constants={"positives": positives})


def labelled(golden: Recorder) -> None:
    with stubbed("sklearn"):
        from pytorch_metric_learning.distances import DotProductSimilarity
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
        from pytorch_metric_learning.utils.inference import CustomKNN

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_reciprocal_rank")
    distance = DotProductSimilarity(normalize_embeddings=False)
    calculator = AccuracyCalculator(
        include=names, k=14, knn_func=CustomKNN(distance), device=torch.device("cpu")
    )
    inputs = {"a": golden.normal(10, 4), "b": golden.normal(14, 4)}
    ids = {"ids_a": np.arange(10) % 4, "ids_b": np.arange(14) % 4}
    found = calculator.get_accuracy(
        torch.tensor(inputs["a"]),
        torch.tensor(ids["ids_a"]),
        torch.tensor(inputs["b"]),
        torch.tensor(ids["ids_b"]),
    )
    value = np.array([found[name] for name in names])
    source = packaged("pytorch-metric-learning", "AccuracyCalculator")
    golden.put("labelled", source, value, inputs=inputs, constants=ids)


def neighbours(golden: Recorder, sources: Sources) -> None:
    repository, path = "minyoungg/platonic-rep", "metrics.py"
    names = ["AlignmentMetrics", "compute_nearest_neighbors", "hsic_unbiased", "hsic_biased"]
    metrics = sources.load(repository, path, names, TORCH)["AlignmentMetrics"]
    a = golden.unit(12, 4)
    inputs = {"a": a, "b": a + 0.4 * golden.normal(12, 4)}
    tensors = [torch.tensor(x) for x in inputs.values()]
    source = sources.name(repository, f"{path}:AlignmentMetrics")
    golden.put("mutual_knn", f"{source}.mutual_knn", metrics.mutual_knn(*tensors, 4), inputs=inputs)
    golden.put("cknna", f"{source}.cknna", metrics.cknna(*tensors, 5), inputs=inputs)
    biased = metrics.cknna(*tensors, 5, unbiased=False)
    golden.put("cknna_biased", f"{source}.cknna(unbiased=False)", biased, inputs=inputs)
