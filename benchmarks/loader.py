"""Reading shards beside a bare loop of the same decoders and threads over bytes in memory.

Each call gives so many batches, images and captions, in a shuffled order of 2^17 records: those of
the files again and again, since Grain's own order costs ten times more below 2^16. What is read
ahead for the next call is done in the untimed one. The files are in the page cache for all.

The pipelines are raced with the bare loop alone; bare Grain, and webdataset and Hugging Face
datasets where they are installed (the extra `bench`), after them: their threads go on between
calls.
"""

import collections
import concurrent.futures
import functools
import importlib.util
import io
import itertools
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import msgpack
import numpy as np
import pyarrow as pa
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image, ImageDraw
from pyarrow import parquet

from datarax.pipeline import Pipeline
from datarax.sources import (
    ArrayRecordSource,
    Fields,
    Limits,
    ParquetSource,
    SubsetSource,
    TarSource,
)
from harness import Report, interleaved, paired

BATCH, THREADS = 64, 2
SHUFFLED = 2**17  # records that are shuffled
IN_TURN = 4  # batches that the bare loop fills, one after another and again
ROUNDS, RIVAL_ROUNDS = 15, 5
LIMITS = Limits()
SOURCES = {"tar": TarSource, "parquet": ParquetSource, "arrayrecord": ArrayRecordSource}
RIVALS = {
    "webdataset": "webdataset, tar, in order, 1 thread",
    "datasets": f"datasets, Arrow copy of parquet, {THREADS} threads",
}


@dataclass(frozen=True)
class Kind:
    """Pictures of one size and format, and the size that they are decoded to."""

    suffix: str
    width: int
    height: int
    size: tuple[int, int]
    records: int

    @property
    def title(self) -> str:
        """As the table calls it."""
        height, width = self.size
        return f"{self.suffix} {self.width} x {self.height} to {width} x {height}"


KINDS = (
    Kind("png", 64, 64, (64, 64), 2048),
    Kind("jpg", 224, 224, (224, 224), 768),
    Kind("jpg", 500, 375, (224, 224), 512),
)


def report(quick: bool) -> Report:
    """A table a kind of picture."""
    out = Report("Reading shards")
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            measure(out, kind, Path(folder), records=128 if quick else kind.records, quick=quick)
    out.note(
        "The bare loop calls `decode` and copies its arrays into the batch. In place, the decoders"
        " write there themselves, as they do in a pipeline: a JPEG of the field's size is not"
        " copied at all."
    )
    out.note(
        "A picture of 64 x 64 is decoded in about 125 us, 110 of them without the"
        " interpreter's lock: a tenth more is 13 us for reading, fields, batch and order."
        " Without decoding pictures these take 8.4 us a record of ArrayRecord, 6.5 of tar and 5.8"
        " of Parquet; between two pictures they take more, since caches are cold then."
    )
    out.note(
        "The ratios are not the same in every process. At 64 x 64, in four of this version tar was"
        " at 0.924 to 0.932, Parquet at 0.918 to 0.940, ArrayRecord at 0.905 to 0.945. In eleven"
        " of one a few changes before they were at 0.905 to 0.939, 0.894 to 0.941 and 0.895 to"
        " 0.933; in three of these one of them was below 0.9, Parquet twice where the bare loop"
        " took 84 us a record instead of 70."
    )
    out.note(
        "At 224 x 224, in eight of nine processes all three were at 0.994 to 1.07. In one the bare"
        " loop took 85 us a record instead of 89 to 95, and was no slower than in place: there tar"
        " and Parquet were at 0.927, ArrayRecord at 0.895."
    )
    present = rivals_present()
    if "webdataset" in present:
        out.note(
            f"webdataset reads in the order of the file, on one thread where others have {THREADS}:"
            " its loader with workers is torch's."
        )
    if "datasets" in present:
        out.note(
            "datasets reads the Arrow file that it has made of the Parquet file, untimed; the"
            " threads are this script's, each at a batch of its own."
        )
    if absent := [f"{name} (not installed)" for name in RIVALS if name not in present]:
        out.note(f"Not beside it: {', '.join(absent)}.")
    return out


def rivals_present() -> list[str]:
    return [name for name in RIVALS if importlib.util.find_spec(name) is not None]


def measure(out: Report, kind: Kind, folder: Path, *, records: int, quick: bool) -> None:
    raw = [(picture(kind, number), f"a picture of number {number}") for number in range(records)]
    write_tar(folder / "a.tar", kind, raw)
    write_parquet(folder / "a.parquet", raw)
    write_array_record(folder / "a.arrayrecord", kind, raw)
    fields = Fields.from_mapping(
        {
            "image": {"from": [kind.suffix, "image"], "decode": "image", "size": list(kind.size)},
            "caption": {"from": ["txt", "caption"], "decode": "text", "length": 128},
        }
    )
    steps = records // BATCH
    order = np.random.default_rng(0).permutation(records)
    pool = concurrent.futures.ThreadPoolExecutor(THREADS)
    batches = [empty_batch(fields) for _ in range(IN_TURN)]
    loop = functools.partial(bare, raw, order, fields, batches, pool=pool)
    floor = {"bare loop": loop}
    in_place = {"in place": functools.partial(loop, is_in_place=True)}
    ours, pipelines = {}, []
    for name, source in SOURCES.items():
        files = source(str(folder / f"a.{name}"), fields=fields)
        made = SubsetSource(files, np.arange(SHUFFLED) % records)
        pipelines.append(Pipeline(made, batch_size=BATCH, seed=0, threads=THREADS))
        ours[name] = epoch_of(iter_forever(pipelines[-1]), steps)
    rows = rates(floor | in_place | ours, records=records, rounds=2 if quick else ROUNDS)
    for row in rows[2:]:
        title = f"{row['variant']} over the bare loop, {kind.title}"
        out.limit(title, row["x bare loop"].median, at_least=0.9)
    for pipeline in pipelines:
        pipeline.close()
    rivals = {"bare Grain, arrayrecord": epoch_of(grain_batches(folder, kind, fields), steps)}
    makers = {"webdataset": webdataset_batches, "datasets": datasets_batches}
    for name in rivals_present():
        rivals[RIVALS[name]] = epoch_of(makers[name](folder, kind, fields), steps)
    rows += rates(floor | rivals, records=records, rounds=2 if quick else RIVAL_ROUNDS)[1:]
    pool.shutdown()
    title = f"{records} of {kind.title}, {THREADS} threads, {size_of(raw)} KiB a picture"
    out.table(title, rows)


def rates(
    variants: dict[str, Callable[[], object]], *, records: int, rounds: int
) -> list[dict[str, Any]]:
    """A row a variant, the first of which is the floor: records a second, and over the floor's."""
    times = interleaved(variants, rounds=rounds)
    floor = next(iter(variants))
    return [
        {
            "variant": name,
            "records/s": round(records / float(np.median(times[name]))),
            f"x {floor}": paired({"a": 1 / times[name], "b": 1 / times[floor]}, "a", "b"),
        }
        for name in variants
    ]


def empty_batch(fields: Fields) -> tuple[np.ndarray, ...]:
    """Arrays for a batch of each field and mask."""
    return tuple(np.zeros((BATCH, *spec.shape), spec.dtype) for spec in fields.spec().values())


def bare(raw, order, fields, batches, *, pool, is_in_place: bool = False) -> None:
    """Decode every record and write it into the arrays of its batch, and nothing else.

    The batches are used in turn: fresh memory for each, kept to the end, made 224 px JPEG a fifth
    slower. In place: a decoder that can writes there itself, as the pipelines have it.
    """
    image, caption = (field.decoder for field in fields.fields.values())

    def fill(batch, rows, start, stop) -> None:
        images, captions, masks = batch
        if is_in_place:
            into_image = image.row_writer([images], limits=LIMITS)
            into_caption = caption.row_writer([captions, masks], limits=LIMITS)
        for place in range(start, stop):
            content, text = raw[rows[place]]
            if is_in_place:
                into_image(place, content)
                into_caption(place, text)
                continue
            images[place] = image.decode(content, limits=LIMITS)[0]
            captions[place], masks[place] = caption.decode(text, limits=LIMITS)

    jobs = []
    steps = range(0, len(order) // BATCH * BATCH, BATCH)
    for first, batch in zip(steps, itertools.cycle(batches), strict=False):
        rows = order[first : first + BATCH]
        ends = [BATCH * piece // THREADS for piece in range(THREADS + 1)]
        jobs += [pool.submit(fill, batch, rows, a, b) for a, b in itertools.pairwise(ends)]
    for job in jobs:
        job.result()


def iter_forever(pipeline: Pipeline) -> Iterator[object]:
    while True:
        yield next(pipeline)


def epoch_of(batches: Iterator[object], steps: int) -> Callable[[], object]:
    def run() -> None:
        for _ in range(steps):
            next(batches)

    return run


def decoder_of(fields: Fields) -> Callable[[bytes, bytes | str], tuple[np.ndarray, ...]]:
    """From the parts of a record to its picture, its caption and the caption's mask."""
    image, caption = (field.decoder for field in fields.fields.values())

    def decode(content: bytes, text: bytes | str) -> tuple[np.ndarray, ...]:
        pixels = image.decode(content, limits=LIMITS)[0]
        return pixels, *caption.decode(text, limits=LIMITS)

    return decode


def grain_batches(folder: Path, kind: Kind, fields: Fields) -> Iterator[object]:
    """Grain's own data source, map and batch, with our decoders."""
    decode = decoder_of(fields)

    def read(record: bytes) -> tuple[np.ndarray, ...]:
        parts = msgpack.unpackb(record)
        return decode(parts[kind.suffix], parts["txt"])

    source = ArrayRecordDataSource([str(folder / "a.arrayrecord")])
    dataset = grain.MapDataset.source(source).shuffle(seed=0).repeat().map(read).batch(BATCH)
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=2)
    return iter(dataset.to_iter_dataset(options))


def webdataset_batches(folder: Path, kind: Kind, fields: Fields) -> Iterator[object]:
    """The reader, map and batch of webdataset, with our decoders."""
    import webdataset

    decode = decoder_of(fields)
    records = webdataset.WebDataset(str(folder / "a.tar"), shardshuffle=False)
    tuples = records.to_tuple(kind.suffix, "txt").map(lambda parts: decode(*parts))
    return iter(tuples.batched(BATCH, partial=False).repeat())


def datasets_batches(folder: Path, _: Kind, fields: Fields) -> Iterator[object]:
    """Slices of a shuffled `Dataset`, with our decoders, a batch a task, a task a thread ahead."""
    import datasets

    datasets.disable_progress_bars()
    decode = decoder_of(fields)
    files = datasets.Dataset.from_parquet(str(folder / "a.parquet"), cache_dir=str(folder))
    many = files.select(np.arange(SHUFFLED) % len(files))

    def read(rows: datasets.Dataset, first: int) -> tuple[np.ndarray, ...]:
        parts = rows[first : first + BATCH]
        pairs = zip(parts["image"], parts["caption"], strict=True)
        decoded = [decode(image["bytes"], text) for image, text in pairs]
        return tuple(np.stack(part) for part in zip(*decoded, strict=True))

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        ahead: collections.deque[concurrent.futures.Future] = collections.deque()
        for epoch in itertools.count():
            rows = many.shuffle(seed=epoch)
            for first in range(0, SHUFFLED, BATCH):
                ahead.append(pool.submit(read, rows, first))
                if len(ahead) > THREADS:
                    yield ahead.popleft().result()


def picture(kind: Kind, number: int) -> bytes:
    """Soft colours, a few shapes and some grain: bytes like a photograph's."""
    draw = np.random.default_rng(number)
    soft = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    image = soft.resize((kind.width, kind.height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = draw.uniform(0, kind.width), draw.uniform(0, kind.height)
        half = draw.uniform(0.05, 0.2) * kind.width
        colour = tuple(draw.integers(0, 256, 3).tolist())
        pen.ellipse((x - half, y - half, x + half, y + half), fill=colour)
    noisy = np.asarray(image, np.float32) + draw.normal(0, 4, (kind.height, kind.width, 1))
    content = io.BytesIO()
    kinds = {"png": ("PNG", {}), "jpg": ("JPEG", {"quality": 90})}
    name, options = kinds[kind.suffix]
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(content, name, **options)
    return content.getvalue()


def size_of(raw) -> int:
    return round(sum(len(content) for content, _ in raw) / len(raw) / 1024)


def write_tar(path: Path, kind: Kind, raw) -> None:
    with tarfile.open(path, "w") as tar:
        for number, (content, text) in enumerate(raw):
            for suffix, part in ((kind.suffix, content), ("txt", text.encode())):
                member = tarfile.TarInfo(f"{number:06}.{suffix}")
                member.size = len(part)
                tar.addfile(member, io.BytesIO(part))


def write_parquet(path: Path, raw) -> None:
    """As Hugging Face writes images, in small row groups."""
    images = [{"bytes": content, "path": None} for content, _ in raw]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "caption": [text for _, text in raw]})
    parquet.write_table(table, path, row_group_size=128)


def write_array_record(path: Path, kind: Kind, raw) -> None:
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for content, text in raw:
        writer.write(msgpack.packb({kind.suffix: content, "txt": text}))
    writer.close()
