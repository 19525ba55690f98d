"""The alignment losses of the originals, with their measures that have a gradient.

`Tensor.item` is the identity while platonic-rep's CKA runs, so that it can be differentiated.
Left out: MultiBench's CCA, whose sum over all singular values is wrong (the root it takes is that
of each element, not of the matrix); transport and Gromov-Wasserstein, which the tests themselves
compare with ott-jax and POT.
"""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch.nn import functional

from golden.recorder import Recorder
from golden.sources import Sources, packaged, packaged_file, stubbed

TORCH = {"torch": torch, "nn": torch.nn, "F": functional}


def record(sources: Sources) -> None:
    golden = Recorder("alignment", seed=20241)
    lightly(golden)
    modality_gap(golden, sources)
    correlation(golden)
    kernels(golden, sources)
    relations(golden, sources)
    distillation(golden, sources)
    golden.save()


def two(golden: Recorder, n: int, d: int) -> dict[str, np.ndarray]:
    return {"a": golden.normal(n, d), "b": golden.normal(n, d)}


def units(golden: Recorder, n: int, d: int) -> dict[str, np.ndarray]:
    return {"a": golden.unit(n, d), "b": golden.unit(n, d)}


def lightly(golden: Recorder) -> None:
    with stubbed("torchvision", "pytorch_lightning"):
        from lightly.loss.barlow_twins_loss import BarlowTwinsLoss
        from lightly.loss.hypersphere_loss import HypersphereLoss
        from lightly.loss.vicreg_loss import VICRegLoss
    losses = {
        "vicreg": VICRegLoss(),
        "barlow_twins": BarlowTwinsLoss(),
        "hypersphere": HypersphereLoss(t=2.0),
    }
    for case, loss in losses.items():
        golden.add(
            case,
            packaged("lightly", type(loss).__name__),
            lambda a, b, loss=loss: loss(a, b),
            two(golden, 8, 5),
        )


def modality_gap(golden: Recorder, sources: Sources) -> None:
    repository, path = "ispamm/ModGap", "losses.py"
    names = ["lunif_loss", "lalign_loss", "compute_centroids_only"]
    scope = sources.load(repository, path, names, TORCH)
    functions = {
        "lalign_loss": lambda a, b: scope["lalign_loss"](a, b),
        "lunif_loss": lambda a, b: scope["lunif_loss"](a),
        "lunif_loss of compute_centroids_only": lambda a, b: scope["lunif_loss"](
            functional.normalize(scope["compute_centroids_only"](a, b), dim=-1)
        ),
    }
    cases = ("alignment", "uniformity", "centroid_uniformity")
    for case, (name, function) in zip(cases, functions.items(), strict=True):
        golden.add(case, sources.name(repository, f"{path}:{name}"), function, units(golden, 7, 4))
    path, name = "metrics.py", "compute_gap"
    gap = sources.load(repository, path, [name], TORCH)[name]
    with mock.patch.object(torch.Tensor, "item", lambda x: x):
        source = sources.name(repository, f"{path}:{name}")
        golden.add("modality_gap", source, lambda a, b: gap(a, b), units(golden, 6, 4))


def correlation(golden: Recorder) -> None:
    names = ["_inv_sqrtm", "CCALoss", "MCCALoss", "GCCALoss"]
    scope = packaged_file("cca-zoo", "cca_zoo/deep/objectives.py", names, TORCH)
    for name, m in {"CCALoss": 2, "MCCALoss": 3, "GCCALoss": 3}.items():
        shared = golden.normal(12, 3)
        golden.add(
            name,
            packaged("cca-zoo", f"deep/objectives.py:{name}"),
            lambda name=name, **x: scope[name](reg_covar=1e-3)(list(x.values())),
            {f"x{k}": shared + 0.8 * golden.normal(12, 3) for k in range(m)},
        )
    path = "cca_zoo/deep/_dcca_ey.py"
    names = ["_cca_cv", "DCCAEY"]
    deep = packaged_file("cca-zoo", path, names, TORCH | {"BaseDeep": object})["DCCAEY"]
    golden.add(
        "DCCAEY",
        packaged("cca-zoo", "deep/_dcca_ey.py:DCCAEY.loss"),
        lambda **x: deep.loss(lambda views: views, {"views": list(x.values())})["objective"],
        {f"x{k}": shared + 0.8 * golden.normal(12, 3) for k in range(3)},
    )


def kernels(golden: Recorder, sources: Sources) -> None:
    repository, path = "minyoungg/platonic-rep", "metrics.py"
    names = ["AlignmentMetrics", "hsic_unbiased", "hsic_biased"]
    scope = sources.load(repository, path, names, TORCH)
    cka = scope["AlignmentMetrics"].cka
    inputs = {"a": golden.normal(8, 3), "b": golden.normal(8, 5)}
    inputs["b"][:, :3] += inputs["a"]
    source = sources.name(repository, f"{path}:AlignmentMetrics.cka")
    with mock.patch.object(torch.Tensor, "item", lambda x: x):
        for kernel in ("ip", "rbf"):
            for unbiased in (False, True):
                golden.add(
                    f"cka_{kernel}_{'debiased' if unbiased else 'biased'}",
                    source,
                    lambda a, b, kernel=kernel, unbiased=unbiased: cka(
                        a, b, kernel_metric=kernel, rbf_sigma=2.0, unbiased=unbiased
                    ),
                    inputs,
                )
    for name in ("hsic_biased", "hsic_unbiased"):
        golden.add(
            name,
            sources.name(repository, f"{path}:{name}"),
            lambda a, b, name=name: scope[name](a @ a.T, b @ b.T),
            inputs,
        )


def relations(golden: Recorder, sources: Sources) -> None:
    repository, path = "goel-shashank/CyCLIP", "src/train.py"
    loss = sources.load(repository, path, ["get_loss"], TORCH)["get_loss"]
    for case, weights in {"cyclip_in_modal": (1.0, 0.0), "cyclip_cross_modal": (0.0, 1.0)}.items():
        options = SimpleNamespace(
            distributed=False,
            inmodal=False,
            device="cpu",
            cylambda1=weights[0],
            cylambda2=weights[1],
        )
        model = SimpleNamespace(logit_scale=torch.tensor(2.0))
        golden.add(
            case,
            sources.name(repository, f"{path}:get_loss"),
            lambda a, b, model=model, options=options: loss(
                model,
                SimpleNamespace(image_embeds=a, text_embeds=b),
                torch.nn.CrossEntropyLoss(),
                options,
            )[2],
            units(golden, 6, 4),
        )
    with stubbed("torchvision"):
        from x_clip import CLIP

    def regularised(text, image, weight):
        model = CLIP(
            text_encoder=lambda *_: text,
            image_encoder=lambda *_: image,
            dim_text=4,
            dim_image=4,
            dim_latent=4,
            extra_latent_projection=True,  # without it the regulariser raises
            sim_reg_loss_weight=weight,
        )
        model.to_text_latent = model.to_visual_latent = torch.nn.Identity()
        model.to_text_latent_extra = model.to_visual_latent_extra = torch.nn.Identity()
        return model(torch.ones(len(text), 1), torch.zeros(len(text), 3), return_loss=True)

    golden.add(
        "similarity_matching",
        packaged("x-clip", "CLIP(sim_reg_loss_weight=1), less the loss without it"),
        lambda a, b: regularised(a, b, 1.0) - regularised(a, b, 0.0),
        two(golden, 6, 4),
    )


def distillation(golden: Recorder, sources: Sources) -> None:
    names = ["ClipLoss", "DistillClipLoss"]
    scope = packaged_file("open_clip_torch", "open_clip/loss.py", names, TORCH)
    teacher = {"teacher_a": golden.unit(6, 5), "teacher_b": golden.unit(6, 5)}
    golden.add(
        "distill_clip",
        packaged("open_clip_torch", "loss.py:DistillClipLoss"),
        lambda a, b, scale, teacher_a, teacher_b, teacher_scale: scope["DistillClipLoss"]()(
            a, b, scale, teacher_a, teacher_b, teacher_scale
        )[1],
        units(golden, 6, 4) | {"scale": np.array(8.0)},
        constants=teacher | {"teacher_scale": np.array(12.0)},
    )
    repository = "autogluon/autogluon"
    path = "multimodal/src/autogluon/multimodal/optimization/losses.py"
    loss = sources.load(repository, path, ["RKDLoss"], TORCH)["RKDLoss"]
    for case, weights in {"rkd_distance": (1.0, 0.0), "rkd_angle": (0.0, 1.0)}.items():
        golden.add(
            case,
            sources.name(repository, f"{path}:RKDLoss"),
            lambda student, teacher, weights=weights: loss(*weights)(student, teacher),
            {"student": golden.normal(6, 4)},
            constants={"teacher": golden.normal(6, 3)},
        )
