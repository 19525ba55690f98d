"""Operators: what turns a batch into a batch with new fields."""

import contextlib
from typing import Any, ClassVar

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from datarax.core import abstract, dispatch, explicit_axes, masks, precision, random, spec
from datarax.core.config import OperatorConfig
from datarax.core.counter import BaseKey, Counter
from datarax.core.element_batch import Batch
from datarax.core.module import DataraxModule
from datarax.core.record_map import map_records


class OperatorModule(DataraxModule, dispatch.HasRuntime):
    """Base of all operators. `op(batch)` gives a new batch; nothing that came in is changed.

    Subclasses implement `apply` for one record, or override `apply_batch` to relate rows. Called
    eagerly an operator runs as one compiled function; inside a JAX transform it is traced with it.

    A row is processed if it is valid and has the `required_fields`. Of any other row the operator
    sees zeros, its new fields are zeros with presence False, and its gradient is exactly 0
    (provided that `apply` has a finite derivative at zeros).

    With `config.cacheable`, an eager call on content seen before returns the fields kept from then:
    neither `apply` nor `batch_stats_fn` runs, the rows are counted. The key is a BLAKE2 hash of the
    bytes of all data, states, masks, indices, parameters and statistics, beside the config and
    every other static attribute; hashing costs a millisecond or two a megabyte, and on an
    accelerator a copy to the host. The last 32 results are kept. A call that draws random numbers
    or updates Variables is never served from the cache, a traced one bypasses it.

    Counters (`applied_count`, `skipped_count`) count rows in eager calls and in NNX transforms. In
    plain `jax.jit`, `vmap` and `grad` closures an operator works and counts nothing.

    `op.compute_dtype = "bfloat16"` (or `"float16"`; `"float32"` casts up) casts the floating fields
    on their way in: the operator computes in it and writes it, fields handed through stay as they
    are. Parameters, their gradients, statistics and losses stay float32, and sums, norms and
    exponentials accumulate in it. `model.set_attributes(compute_dtype="bfloat16")` sets it for all
    operators of a model.

    Args:
      config: the configuration.
      rngs: random number generators; required if `config.stochastic`.
      name: a name for messages and reports.

    Raises:
      ValueError: for a config that is no `config_class`; if stochastic without `rngs`, or `rngs`
        lacks the stream.
    """

    config: OperatorConfig
    config_class: ClassVar[type[OperatorConfig]] = OperatorConfig  # what `config` must be
    checks_structure = True  # an overridden get_output_structure against what apply returns

    def __init__(
        self, config: OperatorConfig, *, rngs: nnx.Rngs | None = None, name: str | None = None
    ) -> None:
        if not isinstance(config, self.config_class):
            raise ValueError(
                f"{type(self).__name__} needs a {self.config_class.__name__}, which has its "
                f"options, got {type(config).__name__}"
            )
        super().__init__(config, rngs=rngs, name=name)
        self.deterministic = False  # True after op.eval(): nothing is drawn
        self.compute_dtype: str | None = None
        self.applied_count = Counter(np.zeros((), np.uint32))
        self.skipped_count = Counter(np.zeros((), np.uint32))
        self._adopt_stream()

    def _adopt_stream(self) -> None:
        self.stochastic = nnx.static(self.config.stochastic)
        self.stream_name = nnx.static(self.config.stream_name)
        if self.config.stochastic:
            if self.rngs is None:
                raise ValueError(
                    f"{type(self).__name__} is stochastic and needs rngs, for example "
                    f"nnx.Rngs(0, {self.config.stream_name}=1)"
                )
            self.base_key = nnx.data(BaseKey(random.threefry_data(self._stream_key())))

    def _config_changed(self, *, rngs_given: bool) -> None:
        if (
            rngs_given
            or self.config.stochastic != self.stochastic
            or self.config.stream_name != self.stream_name
        ):
            self._adopt_stream()

    def _stream_key(self) -> Array:
        name = self.config.stream_name
        assert self.rngs is not None
        try:
            stream = self.rngs[name]
        except (AttributeError, KeyError) as error:
            raise ValueError(f"rngs lack the stream {name!r} and a default stream") from error
        return stream()

    def _own_streams(self) -> list[str]:
        name = self.config.stream_name
        return [] if name is None else [name]

    @property
    def required_fields(self) -> tuple[str, ...]:
        """The fields without which a row is skipped."""
        return ()

    @property
    def read_fields(self) -> tuple[str, ...]:
        """The fields that the operator reads; `apply` finds their presence in its metadata."""
        return ()

    @property
    def masks_rows_itself(self) -> bool:
        """Whether an overridden `apply_batch` gets rows as they came, and masks what it writes."""
        return False

    @property
    def overrides_apply_batch(self) -> bool:
        """Whether this is a batch-level operator."""
        return type(self).apply_batch is not OperatorModule.apply_batch

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Transform one record. Pure: no access to `self.rngs`.

        Args:
          data, state: the record, without a batch axis.
          metadata: inside a batch, that row's traced scalars: `valid`, `presence` (field to bool)
            and `record_index`. A `presence` entry that comes back becomes that output field's.
          random_params: this record's part of `generate_random_params`; `None` if nothing is drawn.
          stats: the statistics of the call, or `None`.

        Returns:
          The new data, state and metadata.

        Raises:
          NotImplementedError: if not implemented by the subclass.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement apply")

    def generate_random_params(self, rng: Array, data_shapes: Any) -> Any:
        """Draw the random parameters of a batch, the batch on axis 0; `None` if deterministic.

        Called with one key and the shapes of the batch. Where the batch has a `record_index` it is
        called for each record, with that record's key and shapes of batch size 1, so that a record
        draws the same numbers in whatever batch it arrives.

        Raises:
          NotImplementedError: if stochastic and not implemented by the subclass.
        """
        if self.config.stochastic:
            raise NotImplementedError(
                f"{type(self).__name__} is stochastic and must implement generate_random_params"
            )
        return None

    def __call__(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """Process a batch: validate, look into the cache, find statistics, apply, count.

        Args:
          batch: the records.
          stats: statistics that go before all others.

        Raises:
          TypeError: if `batch` is no `Batch`.
          ValueError, KeyError: if its fields do not fit the operator.
        """
        if not isinstance(batch, Batch):
            raise TypeError(
                f"{type(self).__name__} takes a Batch, got {type(batch).__name__}: wrap a dict of "
                "arrays as Batch.from_parts(data), stack records with Batch.from_elements(elements)"
            )
        if not dispatch.is_eager():
            out = self._run(batch, stats)
            self._count(batch)
            return out
        statistics = None
        if self.batch_stats_fn is not None and stats is None and batch.batch_size:
            statistics = OperatorModule._call_statistics
        return dispatch.call(self, batch, stats, run=OperatorModule._run, statistics=statistics)

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """Process a batch by mapping `apply` over its records.

        Operators that relate rows override it, and nothing else.

        Args:
          batch: the records.
          stats: statistics; `None` uses `get_statistics()`.

        Returns:
          The batch with the new fields; masks, indices and metadata are kept.
        """
        if stats is None:
            stats = self.get_statistics()
        return self._vmap_apply(batch, self.draw(batch), stats)

    def draw(self, batch: Batch) -> Any:
        """The random parameters for the rows of a batch; `None` if nothing is drawn.

        Raises:
          ValueError: if a result lacks the leading axis of the batch, or a batch without
            `record_index` is drawn for inside a plain JAX transform, which cannot advance a stream.
        """
        if not self.config.stochastic or self.deterministic:
            return None
        if batch.record_index is None:
            shapes = spec.batch_shapes(batch.data)
            params = self.generate_random_params(self.batch_key(batch), shapes)
            self._check_drawn(params, batch.batch_size)
            return params
        base_key = random.threefry_key(self.base_key.get_raw_value())
        shapes = spec.batch_shapes(batch.data, 1)

        def one(index: Array) -> Any:
            params = self.generate_random_params(
                random.record_key(base_key, batch.epoch, index), shapes
            )
            self._check_drawn(params, 1)
            return jax.tree.map(lambda x: x[0], params)

        return jax.vmap(one)(batch.record_index)

    def batch_key(self, batch: Batch) -> Array:
        """One key for a draw that relates rows.

        With a `record_index` it depends on the epoch and the first row's index, otherwise on how
        often the stream was drawn from.

        Raises:
          ValueError: if the stream cannot advance, inside a plain JAX transform.
        """
        if batch.record_index is not None:
            base_key = random.threefry_key(self.base_key.get_raw_value())
            return random.record_key(base_key, batch.epoch, batch.record_index[0])
        try:
            return random.threefry_key(random.threefry_data(self._stream_key()))
        except flax.errors.TraceContextError as error:
            raise ValueError(
                f"{type(self).__name__} draws from stream {self.config.stream_name!r}, which "
                "cannot advance inside a plain jax transform: it would draw the same numbers at "
                "every call. Give the batch a record_index, or use nnx.jit on the operator"
            ) from error

    def _check_drawn(self, params: Any, size: int) -> None:
        for path, leaf in masks.paths(params).items():
            if np.ndim(leaf) == 0 or np.shape(leaf)[0] != size:
                raise ValueError(
                    f"generate_random_params of {type(self).__name__} must return the batch size "
                    f"{size} on axis 0, got shape {np.shape(leaf)}{' for ' * bool(path)}"
                    f"{'.'.join(path)}"
                )

    def _vmap_apply(self, batch: Batch, random_params: Any, stats: dict[str, Any] | None) -> Batch:
        """Map `apply` over the records of a batch, masks honoured: the core of `apply_batch`."""
        self.check_batch(batch)
        declared = None
        overridden = type(self).get_output_structure is not OperatorModule.get_output_structure
        if overridden and self.checks_structure:
            record = spec.record_spec(spec.spec_of((batch.data, batch.states)))
            declared = self.get_output_structure(*record)
        return map_records(
            self.apply,
            batch,
            random_params=random_params,
            stats=stats,
            required_fields=self.required_fields,
            read_fields=self.read_fields,
            strategy=self.config.batch_strategy,
            declared=declared,
        )

    def _run(self, batch: Batch, stats: dict[str, Any] | None) -> Batch:
        """The whole call but for cache and counting."""
        self.check_batch(batch)
        if batch.batch_size == 0:
            return abstract.result_of_no_rows(self, batch, stats, run=OperatorModule._run)
        if (rows := explicit_axes.batch_sharding(batch)) is not None:
            run = OperatorModule._run
            return explicit_axes.run_in_auto_axes(self, batch, stats, sharding=rows, run=run)
        if stats is None:
            stats = self._call_statistics(batch)
        if self.compute_dtype is None:
            return self._transform(batch, stats)
        cast = batch.replace(data=precision.cast_floating(batch.data, self.compute_dtype))
        return precision.restore_uncast(batch, cast, self._transform(cast, stats))

    def _transform(self, batch: Batch, stats: dict[str, Any] | None) -> Batch:
        if not self.overrides_apply_batch or self.masks_rows_itself:
            return self.apply_batch(batch, stats)
        rows = batch.where(*self.required_fields)
        clean = masks.zero_skipped(batch, rows)
        out = self.apply_batch(clean, stats)
        if not isinstance(out, Batch):
            kind = type(self).__name__
            raise TypeError(f"apply_batch of {kind} must return a Batch, got {type(out).__name__}")
        return masks.finish(batch, clean, out, rows=rows, read_fields=self.read_fields)

    def check_batch(self, batch: Batch) -> None:
        """Raise, while tracing, if the fields of a batch do not fit."""

    def _call_statistics(self, batch: Batch) -> dict[str, Any] | None:
        if self.batch_stats_fn is None or self.statistics_origin == "set":
            return self.get_statistics()
        clean = masks.zero_skipped(batch, batch.where(*self.required_fields))
        return self.compute_statistics(clean.data)

    def _count(self, batch: Batch) -> None:
        rows = batch.where(*self.required_fields)
        size = jnp.uint32(batch.batch_size)
        processed = size if rows is None else jnp.sum(rows, dtype=jnp.uint32)
        with contextlib.suppress(flax.errors.TraceContextError):  # a plain jax transform
            self.applied_count.add(processed)
            if rows is not None:
                self.skipped_count.add(size - processed)

    def get_operation_stats(self) -> dict[str, int]:
        """The counters as Python ints; for use outside of compiled functions."""
        return {
            "applied_count": int(self.applied_count.get_raw_value()),
            "skipped_count": int(self.skipped_count.get_raw_value()),
        }

    def reset_operation_stats(self) -> None:
        """Set the counters to zero."""
        self.applied_count.set_raw_value(np.zeros((), np.uint32))
        self.skipped_count.set_raw_value(np.zeros((), np.uint32))

    def reset_cache(self) -> None:
        """Empty the cache of results, if `config.cacheable`."""
        dispatch.reset_cache(self)

    def get_output_structure(self, sample_data: Any, sample_state: Any) -> tuple[Any, Any]:
        """The structure of the data and state of one processed record, with `None` leaves.

        An override, for an `apply` whose shapes cannot be found out by tracing, is checked against
        what `apply` returns.

        Args:
          sample_data, sample_state: one record without a batch axis: arrays or specs.
        """
        data, state = spec.spec_of((sample_data, sample_state))
        rows = abstract.two_rows(data, state)
        out = abstract.result_spec(self, rows, run=OperatorModule._run)
        return jax.tree.map(lambda _: None, (out.data, out.states))

    def output_spec(self, input_spec: Any) -> Any:
        """The spec of a processed record, from the spec of a record.

        Where neither `apply` nor `apply_batch` is overridden it is `input_spec`; otherwise what the
        operator returns for it, found out by abstract evaluation: no data is needed.

        Args:
          input_spec: tree of `jax.ShapeDtypeStruct` (`DataSourceModule.element_spec()`, or another
            operator's `output_spec`).
        """
        if type(self).apply is OperatorModule.apply and not self.overrides_apply_batch:
            return input_spec
        rows = abstract.two_rows(input_spec, {})
        out = abstract.result_spec(self, rows, run=OperatorModule._run)
        return spec.keep_equal(input_spec, spec.record_spec(out.data))
