import jax
import numpy as np
import pytest
from flax import nnx
from pipeline_sources import Marked, content, memory, pipeline

from datarax.core.config import DataraxModuleConfig, OperatorConfig
from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Element
from datarax.core.operator import OperatorModule
from datarax.operators import ContrastiveOperator, ContrastiveOperatorConfig
from datarax.pipeline import epoch_order
from datarax.pipeline.pipeline import Pipeline
from datarax.sources import Fields, MemorySource, MixtureSource, ShardedSource, SubsetSource
from datarax.sources.record import Fault, RawRecord, RecordError


def check_pairing(batch, source):
    """Every field of a valid row is of the record of its index; all else is zeros."""
    for row, number in enumerate(batch.record_index):
        valid = batch.valid_mask[row]
        mark = source.first + int(number) if valid else 0
        there = valid and int(number) % 3 > 0
        assert batch.presence["caption"][row] == there
        assert batch["id"][row] == mark
        assert (batch["image"][row] == mark % 256).all()
        assert (batch["caption"][row] == (mark if there else 0)).all()
        assert (batch["nested.inner"][row] == mark).all()
        if valid:
            about = {"key": str(number), "shard": f"{number % 3}.tar", "row": number // 3}
            assert batch.metadata[row] == about


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_epoch_holds_each_record_once_in_order_and_paired(threads):
    source = Marked(300, first=7, bad=[3, 200], skipped=[299])
    with pipeline(source, threads=threads, batch_size=16) as batches:
        assert len(batches) == 19
        for epoch in range(2):
            seen = []
            for batch in batches:
                assert int(batch.epoch) == epoch
                assert batch["image"].shape == (16, 2, 3)
                assert batch["image"].dtype == np.uint8
                assert batch.record_index.dtype == np.uint32
                check_pairing(batch, source)
                seen += batch.record_index.tolist()
            order = epoch_order(300, epoch=epoch, seed=3, shuffle=True)
            assert seen == [*order, 0, 0, 0, 0]
        assert batches.skipped == 2
        assert batches.ledger.total == 2


def test_the_last_batch_is_padded_or_dropped():
    padded = [*pipeline(Marked(10), shuffle=False)]
    assert padded[-1].valid_mask.tolist() == [True, True, False, False]
    assert padded[-1]["id"].tolist() == [8, 9, 0, 0]
    dropped = pipeline(Marked(10), shuffle=False, remainder="drop")
    assert len(dropped) == len([*dropped]) == 2
    assert len(pipeline(Marked(8))) == 2


def test_batches_have_one_structure_whatever_they_lack():
    batches = [*pipeline(Marked(12, bad=range(4, 8)), shuffle=False)]
    assert not batches[1].valid_mask.any()
    kinds = {
        (
            jax.tree.structure(b.replace(metadata=None)),
            str(jax.tree.map(np.shape, jax.tree.leaves(b))),
        )
        for b in batches
    }
    assert len(kinds) == 1


@pytest.mark.parametrize("remainder", ["pad", "drop"])
@pytest.mark.parametrize("size", [16, 17, 23])
def test_any_number_of_hosts_gives_the_same_global_batches(size, remainder):
    source = Marked(size, bad=[1, 2, 3, 11], skipped=[5])
    options = {"batch_size": 8, "remainder": remainder}
    whole = pipeline(source, host=0, hosts=1, **options)
    expected = [next(whole) for _ in range(2 * len(whole))]
    for hosts in (2, 4, 8):
        parts = [pipeline(source, host=h, hosts=hosts, **options) for h in range(hosts)]
        assert {len(part) for part in parts} == {len(whole)}
        for batch in expected:
            mine = [next(part) for part in parts]
            joined = jax.tree.map(
                lambda *x: np.concatenate(x), *(b.replace(metadata=None, epoch=None) for b in mine)
            )
            metadata = [row for b in mine for row in b.metadata or [{}] * b.batch_size]
            assert content(joined.replace(metadata=metadata, epoch=batch.epoch)) == content(batch)
        found = {fault for part in parts for fault in part.ledger.faults}
        assert found == set(whole.ledger.faults)


def test_a_bad_record_raises_by_choice_and_the_step_is_still_to_be_taken():
    batches = pipeline(Marked(12, bad=[5]), shuffle=False, on_error="raise")
    next(batches)
    for _ in range(2):
        with pytest.raises(RecordError, match=r"2\.tar, record '5', image: broken"):
            next(batches)
        assert batches.state()["step"] == 1


class Failing(Marked):
    """A disk that fails once."""

    fails = 1

    def __getitem__(self, index):
        if index == 6 and self.fails:
            self.fails = 0
            raise OSError("the disk is gone")
        return super().__getitem__(index)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_system_error_stops_and_loses_no_step(threads):
    with pipeline(Failing(12), shuffle=False, threads=threads) as batches:
        first = next(batches)
        with pytest.raises(OSError, match="the disk is gone") as caught:
            next(batches)
        assert caught.value.__notes__ == ["while reading record 6 of Failing"]
        assert batches.ledger.total == 0
        assert first["id"].tolist() == [0, 1, 2, 3]
        assert [b["id"].tolist() for b in batches] == [[4, 5, 6, 7], [8, 9, 10, 11]]


class Wrong(DataSourceModule):
    """Gives what its spec does not say."""

    def __init__(self, data, state=()):
        super().__init__(DataraxModuleConfig())
        self.element = nnx.data(Element(data, state))

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.element

    def element_spec(self):
        return {"x": jax.ShapeDtypeStruct((2,), np.uint8)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": np.zeros(3, np.uint8)}, r"record 0: field 'x' is uint8\[3\].* says uint8\[2\]"),
        ({"x": np.zeros(2)}, r"field 'x' is float64\[2\]"),
        ({"x": np.zeros(2, np.uint8), "y": np.zeros(2)}, r"record 0 has \['y'\]"),
    ],
)
def test_a_source_that_breaks_its_spec_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        next(pipeline(Wrong(data), batch_size=1, shuffle=False))


class Listed:
    """A shard of numbers and captions; an odd record has no caption, the fifth cannot be read."""

    name, faults = "listed", ()

    def __len__(self):
        return 8

    def read(self, row):
        number = "?" if row == 5 else row + 1
        return RawRecord(f"k{row}", {"n": number} | ({} if row % 2 else {"txt": "a"}))

    def identity(self):
        return self.name


def test_fields_that_shards_may_lack_and_a_pipeline_not():
    options = {"n": {"from": "n", "decode": "number"}}
    options["text"] = {"from": "txt", "decode": "text", "length": 4, "missing": "mask"}
    made = ShardedSource([Listed()], fields=Fields.from_mapping(options))
    masked = next(Pipeline(made, batch_size=8, seed=0, shuffle=False))
    assert masked["n"].tolist() == [1, 2, 3, 4, 5, 0, 7, 8]
    assert masked.valid_mask.tolist() == [True] * 5 + [False, True, True]
    assert masked.presence["text"].tolist() == [True, False] * 4
    assert masked.metadata[4] == {"key": "k4", "shard": "listed", "row": 4}
    strict = Pipeline(made, batch_size=8, seed=0, shuffle=False, optional=())
    batch = next(strict)
    assert batch.presence == {}
    assert batch.valid_mask.tolist() == [True, False] * 4
    assert batch["n"].tolist() == [1, 0, 3, 0, 5, 0, 7, 0]
    faults = strict.ledger.faults
    assert [fault.row for fault in faults] == [1, 3, 5, 7]
    assert faults[0] == Fault("listed", "k1", 1, "text", "the record lacks the field")


def test_states_are_refused():
    with pytest.raises(ValueError, match="carries no states"):
        next(pipeline(Wrong({"x": np.zeros(2, np.uint8)}, {"s": np.ones(1)})))


def test_optional_of_a_source_that_does_not_say():
    batches = pipeline(Wrong({}), batch_size=2)
    assert next(batches).presence["x"].tolist() == [False, False]
    strict = pipeline(Wrong({}), batch_size=2, shuffle=False, optional=())
    batch = next(strict)
    assert batch.presence == {}
    assert batch.valid_mask.tolist() == [False, False]
    assert [fault.reason for fault in strict.ledger.faults] == ["the record lacks the field"] * 2
    with pytest.raises(ValueError, match=r"optional names no field: \['z'\]; there are \['x'\]"):
        pipeline(Wrong({}), optional=["z"])


@pytest.mark.parametrize("threads", [0, 2])
def test_a_source_that_gives_many_at_once(threads):
    there = np.arange(11) % 4 > 0
    metadata = [{"key": str(i)} for i in range(11)]
    x = np.where(there, np.arange(11), 0).astype(np.uint8)
    source = MemorySource({"x": x, "y": -np.arange(11)}, presence={"x": there}, metadata=metadata)
    with pipeline(source, threads=threads) as batches:
        for batch in batches:
            rows, valid = batch.record_index, batch.valid_mask
            assert list(batch.presence) == ["x"]
            np.testing.assert_array_equal(batch.presence["x"], there[rows] & valid)
            np.testing.assert_array_equal(batch["x"], np.where(valid, x[rows], 0))
            np.testing.assert_array_equal(batch["y"], np.where(valid, -rows.astype(int), 0))
            assert batch.metadata == [
                {"key": str(row)} if ok else {} for row, ok in zip(rows, valid, strict=True)
            ]


class Negated:
    """A mixin for a source of numbers that changes `source[i]` alone."""

    def __getitem__(self, index):
        record = super().__getitem__(index)
        return Element({**record.data, "n": -record.data["n"]}, metadata=record.metadata)


class NegatedShards(Negated, ShardedSource):
    pass


class NegatedSubset(Negated, SubsetSource):
    pass


class NegatedMemory(Negated, MemorySource):
    pass


class NegatedMixture(Negated, MixtureSource):
    pass


class Around(DataSourceModule):
    """Hands what it does not have on to the source within, which reads many at once."""

    def __init__(self, source):
        super().__init__(DataraxModuleConfig())
        self.source = source

    def __getattr__(self, name):
        if name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)

    def __len__(self):
        return len(self.source)

    def element_spec(self):
        return self.source.element_spec()

    def __getitem__(self, index):
        record = self.source[index]
        return Element({**record.data, "n": -record.data["n"]}, metadata=record.metadata)


@pytest.mark.parametrize("kind", ["shards", "subset", "memory", "mixture", "around"])
def test_a_class_that_changes_a_record_alone_changes_the_batches(kind):
    fields = Fields.from_mapping({"n": {"from": "n", "decode": "number"}})
    plain = ShardedSource([Listed()], fields=fields)
    made = {
        "shards": lambda: NegatedShards([Listed()], fields=fields),
        "subset": lambda: NegatedSubset(plain, range(8)),
        "memory": lambda: NegatedMemory({"n": np.arange(1, 9, dtype=np.float32)}),
        "mixture": lambda: NegatedMixture({"one": plain}, {"one": 1}),
        "around": lambda: Around(plain),
    }[kind]()
    batch = next(Pipeline(made, batch_size=4, seed=0, shuffle=False))
    assert batch["n"].tolist() == [-1, -2, -3, -4]


class Double(OperatorModule):
    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "image": data["image"] + data["image"]}, state, metadata


def test_operators_run_on_the_stacked_batch_in_order_and_uint8_stays():
    seen = []

    def look(batch):
        seen.append(np.asarray(batch["image"]))
        return batch

    source = Marked(8)
    doubled = Pipeline(
        source, [Double(OperatorConfig()), look], batch_size=4, seed=0, shuffle=False, threads=0
    )
    batch = next(doubled)
    assert batch["image"].dtype == np.uint8
    np.testing.assert_array_equal(batch["image"][:, 0, 0], [0, 2, 4, 6])
    np.testing.assert_array_equal(seen[0], batch["image"])


def test_arrays_are_put_on_the_devices_by_choice():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batch = next(pipeline(Marked(8), sharding=sharding, threads=1))
    for leaf in jax.tree.leaves(batch.replace(epoch=None)):
        assert isinstance(leaf, jax.Array)
        assert leaf.sharding == sharding
    assert content(batch) == content(next(pipeline(Marked(8))))
    with pytest.raises(ValueError, match=r"\['x'\] have 64 bits"):
        pipeline(Wide(), sharding=sharding)


class Wide(Wrong):
    def __init__(self):
        super().__init__({})

    def element_spec(self):
        return {"x": jax.ShapeDtypeStruct((), np.int64)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seed": 2**32}, "seed must be in"),
        ({"remainder": "wrap"}, "remainder must be one of"),
        ({"on_error": "skip"}, "on_error must be one of"),
        ({"host": 2, "hosts": 2}, r"host must be in \[0, hosts\), got 2 of 2"),
        ({"host": 0, "hosts": 3}, "4 is no multiple of 3 hosts"),
        ({"threads": -1}, "threads >= 0"),
        ({"ahead": 0}, "ahead >= 1"),
        ({"batch_size": 12, "remainder": "drop"}, "11 records give no full batch"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        pipeline(memory(), **options)


def test_describe():
    source = Marked(30, bad=[0])
    text = pipeline(source, remainder="drop", batch_size=8, host=0, hosts=2).describe(sample=30)
    assert text.splitlines()[:2] == [
        "30 records, shuffled anew each epoch; 6 are left out of each epoch, others in each",
        "3 steps an epoch of 8 records, 4 on each of 2 hosts",
    ]
    assert "fields (presence from a sample: 29 of 30 could be read):" in text
    assert "  image         uint8[2, 3]  always" in text
    assert "  caption       float32[4]   69 %" in text
    assert "exact on resume: yes\nindependent of topology: yes\nin lockstep: yes" in text
    padded = pipeline(source).describe(sample=1)
    assert "the last batch has 2 and 2 rows of padding" in padded
    plain = Pipeline(Wrong({}), [lambda batch: batch], batch_size=2, seed=0)
    assert "exact on resume: no: function is a function that may keep a state" in plain.describe()
    assert "if Wrong gives the same records" in pipeline(Wrong({})).describe()
    assert "every batch is full" in pipeline(Marked(8)).describe()
    assert "marked" in pipeline("mixture").describe()


def test_describe_names_operators_that_relate_rows():
    class Mean(OperatorModule):
        def apply_batch(self, batch, stats=None):
            return batch

    text = pipeline(memory(), operators=[Mean(OperatorConfig())]).describe()
    assert "independent of topology: no: Mean relates the rows of one host" in text
    assert "exact on resume: yes" in text


def paired():
    rows = np.random.default_rng(0).normal(size=(2, 24, 4)).astype(np.float32)
    return MemorySource({"image": rows[0], "text": rows[1]})


def contrastive(**options):
    config = ContrastiveOperatorConfig(
        input_fields=["image", "text"],
        output_fields=["loss"],
        features={"image": 4, "text": 4},
        projection_features=3,
        **options,
    )
    return ContrastiveOperator(config, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("options", [{}, {"queue_size": 16}])
def test_describe_tells_of_a_state_without_which_a_resumed_run_differs(options):
    def made():
        return Pipeline(paired(), [contrastive(**options)], batch_size=8, seed=0, threads=0)

    whole, resumed = made(), made()
    next(whole)
    resumed.restore(whole.state())
    same = np.array_equal(next(whole)["loss"], next(resumed)["loss"])
    told = whole.describe()
    assert ("exact on resume: yes" in told) == same == (not options)
    if options:
        assert (
            "exact on resume: no: ContrastiveOperator has a state of its own (QueueState) that the "
            "pipeline's does not hold: restore it too\n"
        ) in told


def test_describe_tells_of_lengths_that_one_host_fits_and_several_do_not():
    def described(length, **options):
        fields = {"text": {"from": "txt", "decode": "text", "length": length, "missing": "mask"}}
        source = ShardedSource([Listed()], fields=Fields.from_mapping(fields))
        return Pipeline(source, batch_size=8, seed=0, **options).describe()

    no = (
        "independent of topology: no: one host fits the length of text to the batch, several do not"
    )
    assert f"{no}\n" in described([4, 8])
    assert f"{no}, but for fit_lengths=False\n" in described([4, 8], host=0, hosts=2)
    assert "topology: yes" in described([4, 8], fit_lengths=False)
    for hosts in (1, 2):
        assert "topology: yes" in described([8], host=0, hosts=hosts)
        assert "topology: yes" in described(8, host=0, hosts=hosts)


def test_describe_says_when_a_host_may_stop_alone():
    alone = 'in lockstep: yes, unless a host stops alone: with on_error="raise", or beyond'
    assert alone in pipeline(Marked(8), host=1, hosts=2).describe()
    assert pipeline(Marked(8)).describe().endswith("in lockstep: yes")
