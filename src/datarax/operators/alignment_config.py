"""What the alignment operator can be told."""

from dataclasses import dataclass, field
from typing import Literal

from datarax.core.config import check_flag
from datarax.core.cross_modal import CrossModalOperatorConfig
from datarax.functional.alignment.correlation import CCAForm, CCAObjective
from datarax.functional.alignment.kernels import Kernel
from datarax.functional.alignment.redundancy import Statistics
from datarax.operators.checks import (
    check_choice,
    check_count,
    check_number,
    check_options,
    check_positive,
)

AlignmentMethod = Literal[
    "cosine",
    "squared_error",
    "huber",
    "alignment_uniformity",
    "gap_closing",
    "modality_gap",
    "vicreg",
    "barlow_twins",
    "cca",
    "hsic",
    "cka",
    "cross_modal_consistency",
    "in_modal_consistency",
    "similarity_matching",
    "relational_distance",
    "relational_angle",
    "similarity_distillation",
    "procrustes",
]
OPTIONS: dict[str, tuple[str, ...]] = {
    "huber": ("delta",),
    "alignment_uniformity": ("power", "t", "uniformity_weight"),
    "gap_closing": ("power", "t", "uniformity_weight"),
    "vicreg": ("invariance_weight", "variance_weight", "covariance_weight"),
    "barlow_twins": ("redundancy_weight", "ddof", "statistics"),
    "cca": ("form", "objective", "components", "ridge"),
    "hsic": ("kernel", "bandwidth", "debiased"),
    "cka": ("kernel", "bandwidth", "debiased"),
    "relational_distance": ("delta", "teacher_gradient"),
    "relational_angle": ("delta", "teacher_gradient"),
    "similarity_distillation": (
        "logit_scale",
        "teacher_logit_scale",
        "subtract_entropy",
        "teacher_gradient",
    ),
    "procrustes": ("reflection", "center"),
}


@dataclass(frozen=True)
class AlignmentOperatorConfig(CrossModalOperatorConfig):
    """Which distance. An option that the method does not read is refused.

    Attributes:
      method: a function of `datarax.functional`; see `operators.alignment_losses` for each. Two
        input fields, but two or more for `"cca"`, and for `"similarity_distillation"` the student's
        two and the teacher's two. Of `"relational_distance"` and `"relational_angle"` the second
        field is the teacher.
      normalize: make unit vectors first; `None` does for the methods that are defined on the
        sphere: alignment and uniformity, gap, the two consistencies and the two of similarity.
      power: exponent of the distance in the alignment term; 2 is the paper's.
      t: factor in the exponent of the uniformity term; 2 is the paper's, 1 lightly's.
      uniformity_weight: weight of the uniformity term; 1 is the paper's.
      delta: where the Huber penalty turns linear.
      invariance_weight, variance_weight, covariance_weight: of VICReg.
      redundancy_weight, ddof, statistics: of Barlow Twins.
      form, objective, components, ridge: of CCA.
      kernel, bandwidth, debiased: of HSIC and CKA.
      logit_scale, teacher_logit_scale: inverse temperatures of distillation; 1/0.07 is CLIP's,
        `None` is that of the student.
      subtract_entropy: distil by the divergence, not the cross-entropy.
      teacher_gradient: let the gradient of a distillation reach the teacher's fields.
      reflection, center: of the Procrustes map.

    Raises:
      ValueError: for a wrong number of fields, an unknown choice, a number out of range, or an
        option that the method does not read.
    """

    operation: str = field(default="alignment", kw_only=True)
    method: AlignmentMethod = field(default="cosine", kw_only=True)
    normalize: bool | None = field(default=None, kw_only=True)
    power: float = field(default=2.0, kw_only=True)
    t: float = field(default=2.0, kw_only=True)
    uniformity_weight: float = field(default=1.0, kw_only=True)
    delta: float = field(default=1.0, kw_only=True)
    invariance_weight: float = field(default=25.0, kw_only=True)
    variance_weight: float = field(default=25.0, kw_only=True)
    covariance_weight: float = field(default=1.0, kw_only=True)
    redundancy_weight: float = field(default=5e-3, kw_only=True)
    ddof: Literal[0, 1] = field(default=0, kw_only=True)
    statistics: Statistics = field(default="each", kw_only=True)
    form: CCAForm | None = field(default=None, kw_only=True)
    objective: CCAObjective = field(default="sum_squares", kw_only=True)
    components: int | None = field(default=None, kw_only=True)
    ridge: float = field(default=1e-4, kw_only=True)
    kernel: Kernel = field(default="linear", kw_only=True)
    bandwidth: float | None = field(default=None, kw_only=True)
    debiased: bool = field(default=False, kw_only=True)
    logit_scale: float = field(default=1 / 0.07, kw_only=True)
    teacher_logit_scale: float | None = field(default=None, kw_only=True)
    subtract_entropy: bool = field(default=False, kw_only=True)
    teacher_gradient: bool = field(default=False, kw_only=True)
    reflection: bool = field(default=True, kw_only=True)
    center: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("method", self.method, AlignmentMethod)
        self._check_fields()
        self._check_choices()
        self._check_numbers()
        check_options(self, self.method, OPTIONS)

    def _check_fields(self) -> None:
        check_count("output_fields", self.output_fields, [1])
        if self.method != "cca":
            count = 4 if self.method == "similarity_distillation" else 2
            check_count("input_fields", self.input_fields, [count])
        elif len(self.input_fields) < 2:
            raise ValueError(f"input_fields must hold two or more fields, got {self.input_fields}")

    def _check_choices(self) -> None:
        check_choice("ddof", self.ddof, Literal[0, 1])
        check_choice("statistics", self.statistics, Statistics)
        check_choice("objective", self.objective, CCAObjective)
        check_choice("kernel", self.kernel, Kernel)
        if self.form is not None:
            check_choice("form", self.form, CCAForm)
        forms = {"pairs": ("objective", "ridge"), "gcca": ("components", "ridge"), "ey": ()}
        check_options(self, self.form or "pairs", forms)
        for name, flag in (
            ("debiased", self.debiased),
            ("subtract_entropy", self.subtract_entropy),
            ("teacher_gradient", self.teacher_gradient),
            ("reflection", self.reflection),
            ("center", self.center),
            ("normalize", self.normalize is None or self.normalize),
        ):
            check_flag(name, flag)
        if self.bandwidth is not None and self.kernel == "linear":
            raise ValueError(f"bandwidth={self.bandwidth} is read by kernel 'rbf' only")

    def _check_numbers(self) -> None:
        for name, value in (("power", self.power), ("t", self.t), ("delta", self.delta)):
            check_number(name, value, low=0, high=100, open_low=True)
        for name, value in (
            ("uniformity_weight", self.uniformity_weight),
            ("invariance_weight", self.invariance_weight),
            ("variance_weight", self.variance_weight),
            ("covariance_weight", self.covariance_weight),
            ("redundancy_weight", self.redundancy_weight),
            ("ridge", self.ridge),
        ):
            check_number(name, value, low=0, high=1e6)
        check_number("logit_scale", self.logit_scale, low=0, high=1e6, open_low=True)
        for name, optional in (
            ("bandwidth", self.bandwidth),
            ("teacher_logit_scale", self.teacher_logit_scale),
        ):
            if optional is not None:
                check_number(name, optional, low=0, high=1e6, open_low=True)
        if self.components is not None:
            check_positive("components", self.components)
