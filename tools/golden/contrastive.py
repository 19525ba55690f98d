"""The contrastive losses of the originals.

Run as they are, with these exceptions. GRAM casts its Gram matrix to float32 before the
determinant; that cast is turned off. Of x-clip the encoders and projections are identities, so that
embeddings go in directly. Left out: ITM's hard negatives, which are drawn inside the loss
(torchmultimodal `blip2_losses.itm_loss`), and the memory banks of lightly and
pytorch-metric-learning, which start from random vectors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

from golden.recorder import Recorder, undone_casts
from golden.sources import Sources, packaged, packaged_file, stubbed

TORCH = {"torch": torch, "nn": torch.nn, "F": functional}
OPEN_CLIP = {"small": (5, 4, 7.0, -3.0), "clip": (16, 8, 100.0, -10.0), "one": (1, 8, 14.3, -2.0)}
LABELS = np.array([0, 1, 0, 2, 1, 0, 3])


def record(sources: Sources) -> None:
    golden = Recorder("contrastive", seed=20240)
    open_clip(golden)
    torchmultimodal(golden)
    views(golden)
    supervised(golden)
    triplets(golden)
    volumes(golden, sources)
    symile(golden)
    loob(golden, sources)
    x_clip(golden)
    masked(golden, sources)
    golden.save()


def pair(golden: Recorder, n: int, d: int, scale: float) -> dict[str, np.ndarray]:
    return {"a": golden.unit(n, d), "b": golden.unit(n, d), "scale": np.array(scale)}


def open_clip(golden: Recorder) -> None:
    names = ["ClipLoss", "SigLipLoss"]
    losses = packaged_file("open_clip_torch", "open_clip/loss.py", names, TORCH)
    for case, (n, d, scale, bias) in OPEN_CLIP.items():
        inputs = pair(golden, n, d, scale) | {"bias": np.array(bias)}
        for name in names:
            golden.add(
                f"open_clip_{name}_{case}",
                packaged("open_clip_torch", f"loss.py:{name}"),
                lambda a, b, scale, bias, loss=losses[name]: loss()(a, b, scale, bias),
                inputs,
            )
    loss = losses["ClipLoss"]
    golden.add(
        "open_clip_pairs",
        packaged("open_clip_torch", "loss.py:ClipLoss, the mean over three pairs"),
        lambda x0, x1, x2, scale: (
            (loss()(x0, x1, scale) + loss()(x0, x2, scale) + loss()(x1, x2, scale)) / 3
        ),
        {f"x{k}": golden.unit(5, 4) for k in range(3)} | {"scale": np.array(9.0)},
    )


def torchmultimodal(golden: Recorder) -> None:
    from torchmultimodal.modules.losses.albef import ImageTextContrastiveLoss
    from torchmultimodal.modules.losses.contrastive_loss_with_temperature import (
        contrastive_loss_with_temperature,
    )

    golden.add(
        "label_smoothing",
        packaged("torchmultimodal-nightly", "contrastive_loss_with_temperature"),
        lambda a, b, scale: (
            contrastive_loss_with_temperature(
                a, b, scale.log(), cross_entropy_kwargs={"label_smoothing": 0.1}
            ).loss
        ),
        pair(golden, 6, 5, 12.0),
    )
    source = packaged("torchmultimodal-nightly", "losses/albef.py:ImageTextContrastiveLoss")
    same = (LABELS[:, None] == LABELS[None, :]).astype(float)
    golden.add(
        "albef_ids",
        source,
        lambda a, b, scale, targets, ids: ImageTextContrastiveLoss()(
            scale * a @ b.T, scale * b @ a.T, sim_targets=targets
        ),
        pair(golden, 7, 5, 9.0),
        constants={"targets": same / same.sum(1, keepdims=True), "ids": LABELS},
    )
    teacher = {"teacher_a": golden.unit(7, 5), "teacher_b": golden.unit(7, 5)}
    golden.add(
        "albef_distilled",
        source,
        lambda a, b, scale, teacher_a, teacher_b, targets, alpha: ImageTextContrastiveLoss()(
            scale * a @ b.T,
            scale * b @ a.T,
            scale.detach() * teacher_a @ teacher_b.T,
            scale.detach() * teacher_b @ teacher_a.T,
            sim_targets=targets,
            alpha=float(alpha),
        ),
        pair(golden, 7, 5, 9.0),
        constants=teacher | {"targets": np.eye(7), "alpha": np.array(0.4)},
    )


def views(golden: Recorder) -> None:
    """The losses over two views of SimCLR; both normalise their inputs."""
    with stubbed("torchvision", "pytorch_lightning"):
        from lightly.loss.dcl_loss import DCLLoss
        from lightly.loss.ntx_ent_loss import NTXentLoss
    for case, loss in {"dcl_views": DCLLoss, "nt_xent": NTXentLoss}.items():
        golden.add(
            case,
            packaged("lightly", loss.__name__),
            lambda a, b, loss=loss: loss(temperature=0.2)(a, b),
            {"a": golden.normal(6, 4), "b": golden.normal(6, 4)},
        )


def supervised(golden: Recorder) -> None:
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.losses import SupConLoss
    from pytorch_metric_learning.reducers import DoNothingReducer

    loss = SupConLoss(
        temperature=0.3,
        distance=DotProductSimilarity(normalize_embeddings=False),
        reducer=DoNothingReducer(),
    )
    source = packaged("pytorch-metric-learning", "SupConLoss")
    golden.add(
        "supcon_one_set",
        source,
        lambda a, ids: loss(a, ids)["loss"]["losses"],
        {"a": golden.unit(7, 4)},
        constants={"ids": LABELS},
    )
    golden.add(
        "supcon_two_sets",
        source,
        lambda a, b, ids: loss(a, ids, ref_emb=b, ref_labels=ids.clone())["loss"]["losses"],
        {"a": golden.unit(7, 4), "b": golden.unit(7, 4)},
        constants={"ids": LABELS},
    )


def triplets(golden: Recorder) -> None:
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import BatchHardMiner
    from pytorch_metric_learning.reducers import DoNothingReducer

    distance = DotProductSimilarity(normalize_embeddings=False)
    loss = TripletMarginLoss(margin=0.3, distance=distance, reducer=DoNothingReducer())
    miner = BatchHardMiner(distance=distance)

    def hardest(a, b, ids, margin):
        mined = miner(a, ids, b, ids.clone())
        return loss(a, ids, mined, b, ids.clone())["loss"]["losses"]

    def every(a, b, ids, margin):
        return loss(a, ids, ref_emb=b, ref_labels=ids.clone())["loss"]["losses"].sum()

    inputs = {"a": golden.unit(6, 4), "b": golden.unit(6, 4)}
    constants = {"ids": np.arange(6), "margin": np.array(0.3)}
    source = packaged("pytorch-metric-learning", "TripletMarginLoss")
    golden.add(
        "triplet_hardest", f"{source} + BatchHardMiner", hardest, inputs, constants=constants
    )
    golden.add("triplet_every", source, every, inputs, constants=constants)


def volumes(golden: Recorder, sources: Sources) -> None:
    path = ("ispamm/GRAM", "utils/volume.py", ["volume_computation"])
    volume = sources.load(*path, TORCH)["volume_computation"]
    source = sources.name("ispamm/GRAM", "utils/volume.py:volume_computation")

    def loss(first, *others):
        with undone_casts():
            logits = -volume(first, *others) / 0.2
        rows = torch.arange(len(first))
        both = (functional.cross_entropy(x, rows, label_smoothing=0.1) for x in (logits, logits.T))
        return sum(both) / 2

    for m in (2, 3, 4):
        inputs = {f"x{k}": golden.unit(5, 6) for k in range(m)}
        with undone_casts():
            golden.add(f"gram_volume_{m}", source, lambda **x: volume(*x.values()), inputs)
            golden.add(f"gram_loss_{m}", source, lambda **x: loss(*x.values()), inputs)
    alike = golden.unit(4, 5)
    with undone_casts():
        golden.add(
            "gram_alike", source, lambda **x: loss(*x.values()), {f"x{k}": alike for k in range(3)}
        )
    area = sources.load("ispamm/TRIANGLE", "utils/area.py", ["area_computation"], TORCH)
    golden.add(
        "triangle_area",
        sources.name("ispamm/TRIANGLE", "utils/area.py:area_computation"),
        area["area_computation"],
        {name: golden.unit(5, 6) for name in ("language", "video", "audio")},
    )


def symile(golden: Recorder) -> None:
    from symile import Symile

    for m, n in {3: 5, 4: 3}.items():
        golden.add(
            f"symile_{m}",
            packaged("symile", "Symile('n_squared')"),
            lambda scale, **x: Symile("n_squared")(list(x.values()), scale),
            {f"x{k}": golden.unit(n, 4) for k in range(m)} | {"scale": np.array(6.0)},
        )


def loob(golden: Recorder, sources: Sources) -> None:
    load = sources.load("ml-jku/cloob", "src/training/methods.py", ["infoLOOB_loss"], TORCH)
    loss = load["infoLOOB_loss"]
    golden.add(
        "info_loob",
        sources.name("ml-jku/cloob", "src/training/methods.py:infoLOOB_loss"),
        lambda a, b, scale: loss(a, b, torch.eye(len(a)) > 0.5, scale),
        pair(golden, 6, 4, 4.0),
    )


class Given(torch.nn.Module):
    """An encoder that returns its tokens whatever it is asked."""

    def __init__(self, tokens: torch.Tensor) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, *_: torch.Tensor) -> torch.Tensor:
        """The given tokens."""
        return self.tokens


def x_clip(golden: Recorder) -> None:
    with stubbed("torchvision"):
        from x_clip import CLIP

    def loss(text, image, log_scale, mask, **options):
        model = CLIP(
            text_encoder=Given(text),
            image_encoder=Given(image),
            dim_text=4,
            dim_image=4,
            dim_latent=4,
            text_has_cls_token=False,
            visual_has_cls_token=options.pop("visual_has_cls_token", False),
            **options,
        )
        model.to_text_latent = model.to_visual_latent = torch.nn.Identity()
        del model.temperature
        model.temperature = log_scale
        return model(mask.long(), torch.zeros(len(text), 3), return_loss=True)

    mask = np.ones((5, 3), bool)
    mask[1, 2:] = mask[4, 1:] = False
    golden.add(
        "filip",
        packaged("x-clip", "CLIP(use_all_token_embeds=True)"),
        lambda text, image, log_scale, mask: loss(
            text, image, log_scale, mask, use_all_token_embeds=True
        ),
        {
            "text": golden.normal(5, 3, 4),
            "image": golden.normal(5, 6, 4),
            "log_scale": np.array(1.3),
        },
        constants={"mask": mask},
    )
    inputs = {"text": golden.normal(6, 4), "image": golden.normal(6, 4), "log_scale": np.array(1.3)}
    whole = torch.ones(6, 1, dtype=torch.bool)
    options = {"visual_has_cls_token": True}
    golden.add(
        "dcl_cross_modal",
        packaged("x-clip", "CLIP(decoupled_contrastive_learning=True)"),
        lambda **x: loss(**x, mask=whole, decoupled_contrastive_learning=True, **options),
        inputs,
    )


def masked(golden: Recorder, sources: Sources) -> None:
    repository, path = "google-research/big_vision", "big_vision/utils.py"
    name = "bidirectional_contrastive_loss"
    loss = sources.load(repository, path, [name], {"jax": jax, "jnp": jnp})[name]
    inputs = pair(golden, 6, 4, 10.0)
    mask = np.array([True, False, True, True, False, True])
    cotangent = golden.normal(6)
    with jax.enable_x64(True):
        value, back = jax.vjp(
            lambda *x: loss(*x, mask=jnp.asarray(mask))[0], *map(jnp.asarray, inputs.values())
        )
        gradients = dict(zip(inputs, back(jnp.asarray(cotangent)), strict=True))
    golden.arrays["masked/cotangent"] = cotangent
    golden.put(
        "masked",
        sources.name(repository, f"{path}:{name}"),
        value,
        inputs=inputs,
        constants={"mask": mask},
        gradients=gradients,
    )
