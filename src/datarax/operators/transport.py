"""Optimal transport: which tokens, or which rows, of one field go to which of another."""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array

from datarax.core.config import check_flag
from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.fields import get_field, require_fields
from datarax.functional.transport.gromov import GromovTransport, gromov_wasserstein
from datarax.functional.transport.marginals import Regulariser
from datarax.functional.transport.point_sets import (
    Metric,
    point_cost,
    sinkhorn_divergence,
    transport_cost,
    transport_features,
)
from datarax.functional.transport.sinkhorn import (
    Transport,
    partial_sinkhorn,
    sinkhorn,
    unbalanced_sinkhorn,
)
from datarax.operators.checks import (
    check_choice,
    check_count,
    check_number,
    check_options,
    check_positive,
)

TransportMethod = Literal["balanced", "unbalanced", "partial", "gromov"]
Objective = Literal["regularised", "cost", "divergence"]

OPTIONS = {
    "balanced": ("unroll",),
    "unbalanced": ("relaxation", "regulariser", "unroll"),
    "partial": ("mass", "regulariser", "unroll"),
    "gromov": ("inner_iterations",),
}


@dataclass(frozen=True)
class TransportOperatorConfig(CrossModalOperatorConfig):
    """Which transport, between what.

    Attributes:
      method: `"balanced"`, `"unbalanced"`, `"partial"`, or `"gromov"` for fields whose vectors
        cannot be compared: widths may differ, only the distances within each field are used.
      level: `"tokens"` aligns the tokens `[t, d]` and `[s, e]` of two fields within each record,
        `"rows"` the vectors `[d]` and `[e]` of two fields over the batch.
      objective: what the loss is: `"regularised"` has the exact gradient, `"cost"` is the
        transport's cost alone with the plan held fixed; `"divergence"` is Sinkhorn's, 0 for equal
        sets, of balanced transport.
      metric: cost of two vectors.
      epsilon: strength of the regularisation, in units of the mean cost.
      num_iterations: the largest number of sweeps; of outer iterations with `"gromov"`.
      tolerance: when to stop before.
      source_mask, target_mask: fields with a bool for each token, True to keep; `None` keeps all.
        Read at the level of tokens.
      relaxation: how dear it is to miss a weight, in units of the mean cost; `"unbalanced"`.
      regulariser: what an `"unbalanced"` or `"partial"` plan is drawn to: `"kl"` the product of the
        weights, `"entropy"` the constant.
      mass: the share that is transported, of `"partial"`.
      inner_iterations: sweeps within an outer iteration of `"gromov"`.
      unroll: make `num_iterations` sweeps and differentiate them, for their memory: then plan and
        transported target have their gradient. Not of `"gromov"`.

    Raises:
      ValueError: unless there are two input fields and one to four output fields (loss, transported
        target, convergence, plan), for an unknown choice, a number out of range, or an option that
        the method does not read.
    """

    operation: str = field(default="transport", kw_only=True)
    method: TransportMethod = field(default="balanced", kw_only=True)
    level: Literal["tokens", "rows"] = field(default="tokens", kw_only=True)
    objective: Objective = field(default="regularised", kw_only=True)
    metric: Metric = field(default="squared_euclidean", kw_only=True)
    epsilon: float = field(default=0.1, kw_only=True)
    num_iterations: int = field(default=100, kw_only=True)
    tolerance: float = field(default=1e-3, kw_only=True)
    source_mask: str | None = field(default=None, kw_only=True)
    target_mask: str | None = field(default=None, kw_only=True)
    relaxation: float = field(default=1.0, kw_only=True)
    regulariser: Regulariser = field(default="kl", kw_only=True)
    mass: float = field(default=0.5, kw_only=True)
    inner_iterations: int = field(default=100, kw_only=True)
    unroll: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("input_fields", self.input_fields, [2])
        check_choice("method", self.method, TransportMethod)
        check_choice("level", self.level, Literal["tokens", "rows"])
        check_choice("objective", self.objective, Objective)
        check_choice("metric", self.metric, Metric)
        check_choice("regulariser", self.regulariser, Regulariser)
        check_options(self, self.method, OPTIONS)
        check_flag("unroll", self.unroll)
        check_positive("num_iterations", self.num_iterations)
        check_positive("inner_iterations", self.inner_iterations)
        check_number("epsilon", self.epsilon, low=0, high=1e6, open_low=True)
        check_number("tolerance", self.tolerance, low=0, high=1e6)
        check_number("relaxation", self.relaxation, low=0, high=1e6, open_low=True)
        check_number("mass", self.mass, low=0, high=1, open_low=True)
        if self.objective == "divergence" and self.method != "balanced":
            raise ValueError(f"objective 'divergence' is of method 'balanced', got {self.method!r}")
        rows = self.level == "rows"
        check_count("output_fields", self.output_fields, [1, 2, 3, 4])
        if rows and len(self.output_fields) > 3:
            raise ValueError(f"level 'rows' writes no plan, got output_fields {self.output_fields}")
        for name, mask in (("source_mask", self.source_mask), ("target_mask", self.target_mask)):
            if mask is not None and not isinstance(mask, str):
                raise ValueError(f"{name} must be the name of a field, got {mask!r}")
            if rows and mask is not None:
                raise ValueError(f"{name} is read at level 'tokens' only, got {mask!r}")


class TransportOperator(CrossModalOperator):
    """Optimal transport from the first field to the second.

    Writes the loss; with more output fields the transported target (for each token or row of the
    first field the mean of what the plan brings it from the second, 0 where it brings nothing),
    whether the iteration converged, and at the level of tokens the plan `[t, s]`. At the level of
    rows the loss and the flag are the same in every row, and rows without both fields take no part.
    The plan is a constant, and the transported target has the gradient of the second field alone,
    unless the sweeps are unrolled.

    Example:
      >>> config = TransportOperatorConfig(input_fields=["a", "b"], output_fields=["loss"])
      >>> x = jnp.eye(3)[None]
      >>> batch = TransportOperator(config)(Batch.from_parts({"a": x, "b": x[:, ::-1]}))
      >>> batch["loss"].shape
      (1,)
    """

    config: TransportOperatorConfig
    config_class = TransportOperatorConfig

    def check_batch(self, batch: Batch) -> None:
        """Raise as `CrossModalOperator.check_batch`, and if a mask field is missing."""
        super().check_batch(batch)
        names = (self.config.source_mask, self.config.target_mask)
        require_fields(batch.data, [name for name in names if name is not None])

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Transport within one record.

        Raises:
          ValueError: at the level of rows.
        """
        if self.config.level == "rows":
            raise ValueError("level 'rows' relates rows: call the operator on a batch")
        names = (self.config.source_mask, self.config.target_mask)
        masks = [None if name is None else get_field(data, name) for name in names]
        source, target = self._extract_inputs(data)
        outputs = _outputs(self.config, source, target, masks=(masks[0], masks[1]))
        return self._store_outputs(data, outputs), state, metadata

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """Transport over a batch; see `functional.transport`."""
        if self.config.level == "tokens":
            return super().apply_batch(batch, stats)
        self.check_batch(batch)
        where = batch.where(*self.config.input_fields)
        source, target = self._extract_inputs(batch.data)
        outputs = _outputs(self.config, source, target, masks=(where, where))
        rows = (batch.batch_size,)
        outputs = [x if x.ndim else jnp.broadcast_to(x, rows) for x in outputs]
        return batch.replace(data=self._store_outputs(batch.data, outputs))


def _outputs(
    config: TransportOperatorConfig,
    source: Array,
    target: Array,
    *,
    masks: tuple[Array | None, Array | None],
) -> list[Array]:
    """As many of loss, transported target, convergence and plan as there are output fields."""
    options: dict[str, Any] = dict(zip(("a_mask", "b_mask"), masks, strict=True))
    found = _transport(config, source, target, options)
    if config.objective == "divergence":
        loss = sinkhorn_divergence(
            source, target, metric=config.metric, **options, **_common(config)
        )
    else:
        loss = found.cost if config.objective == "cost" else found.regularised_cost
    count = len(config.output_fields)
    brought = transport_features(found.plan, target, mask=masks[1]) if count > 1 else None
    return [loss, brought, found.converged, found.plan][:count]


def _transport(
    config: TransportOperatorConfig, source: Array, target: Array, masks: dict[str, Any]
) -> Transport | GromovTransport:
    common = _common(config)
    if config.method == "gromov":
        first, second = (
            transport_cost(x, x, metric=config.metric, a_mask=mask, b_mask=mask)
            for x, mask in zip((source, target), masks.values(), strict=True)
        )
        inner = config.inner_iterations
        return gromov_wasserstein(first, second, inner_iterations=inner, **masks, **common)
    # The plan asked for, or sweeps that are differentiated, are matrices in any case.
    whole = config.unroll or len(config.output_fields) > 3
    make = transport_cost if whole else point_cost
    cost = make(source, target, metric=config.metric, **masks)
    if config.method == "unbalanced":
        return unbalanced_sinkhorn(
            cost,
            relaxation=config.relaxation,
            regulariser=config.regulariser,
            unroll=config.unroll,
            **masks,
            **common,
        )
    if config.method == "partial":
        return partial_sinkhorn(
            cost,
            mass=config.mass,
            regulariser=config.regulariser,
            unroll=config.unroll,
            **masks,
            **common,
        )
    return sinkhorn(cost, unroll=config.unroll, **masks, **common)


def _common(config: TransportOperatorConfig) -> dict[str, Any]:
    return {
        "epsilon": config.epsilon,
        "num_iterations": config.num_iterations,
        "tolerance": config.tolerance,
    }
