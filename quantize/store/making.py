"""Make an entry of the store: fetch and quantize shard by shard, or only fetch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from calculator.cards.card import find_machine_card
from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError
from calculator.memory.making_cost import CardRates, making_cost
from glm4q.kernels.choose import candidates
from glm4q.planning.devices import choose_device, choose_dtype
from glm4q.planning.disk import refuse_full_disk
from glm4q.planning.named_model import ModelRequest
from quantize.calibrate.samples import Calibration, read_calibration
from quantize.job import Job
from quantize.output.checksums import CHECKSUMS, write_checksums
from quantize.output.layout import lay_out, total_bytes
from quantize.output.target import partial_directory
from quantize.parts import parts_of
from quantize.pipeline import ByShards
from quantize.progress import QuantizeProgress
from quantize.quality.examine import HeldOut, read_domains
from quantize.quality.predictor import ComputeSettings
from quantize.quality.recorded import SourceRecord
from quantize.recipe import make_recipe
from quantize.store.entries import BEGUN, ORIGIN, PUBLISHED, Entry, Origin, Store, disk_bytes
from quantize.store.shards import WHOLE, Schedule, ShardSupply
from quantize.store.source import MIRRORED, Source


@dataclass(frozen=True)
class Costs:
    """What making an entry takes, known before it begins."""

    fetched_bytes: int
    """What comes over the network."""
    files: int
    """How many shards that is."""
    output_bytes: int
    shard_bytes: int
    """The most bytes of shards that lie on the disk at once."""
    states_bytes: int
    """Hidden states of samples and of the text that quality is measured on."""
    memory_bytes: int
    seconds: tuple[float, float]
    """Without the network."""
    computes: str
    """What computes in so many seconds."""

    @property
    def disk_bytes(self) -> int:
        """The most bytes of the disk while the entry is made."""
        return self.output_bytes + self.shard_bytes + self.states_bytes


class Making:
    """The making of one entry, planned as a whole before anything large is fetched."""

    def __init__(self, source: Source, origin: Origin, store: Store, request: ModelRequest) -> None:
        self.source, self.origin = source, origin
        self._store, self._keep = store, request.keep_source or origin.method == PUBLISHED
        self.output = store.directory / origin.name
        formats = source.stored.formats
        if origin.method != PUBLISHED:
            self._recipe = make_recipe(
                weights=origin.weights,
                group_size=origin.group_size,
                lm_head=origin.lm_head,
                method=origin.method,
            )
            formats = self._recipe.formats(source.stored)
        self._formats, self._parts = formats, parts_of(formats)
        is_made = origin.method != PUBLISHED
        schedule = Schedule.of(source.stored, self._parts) if is_made else None
        self._schedule = schedule or Schedule.whole(source.stored)
        self._job = self._make_job(request) if is_made else None
        self.costs = self._cost()

    @property
    def is_quick(self) -> bool:
        """Whether INT4 is rounded without samples."""
        return (self.origin.weights, self.origin.method) == ("int4", "rtn")

    @property
    def is_begun(self) -> bool:
        """Whether an earlier run has begun the entry."""
        return self._begun.is_file()

    @property
    def _begun(self) -> Path:
        return self.source.workshop / f"{self.origin.name}{BEGUN}"

    def run(self, progress: QuantizeProgress) -> Entry:
        """Make the entry, or go on with it. Raises Glm4qError."""
        refuse_full_disk(
            self.source.workshop, self.output, self.costs.disk_bytes - self._bytes_there()
        )
        self.origin.write(self._begun)
        with self._supplying(progress) as supply:
            if self._job is None:
                self._publish(supply, self.output, self.origin)
            else:
                self._quantize(self._job, supply, progress)
        self._begun.unlink()
        return Entry(self.output, self.origin)

    def _make_job(self, request: ModelRequest) -> Job:
        """Plan the run, on the CPU where the GPU has too little memory for it."""
        stored = self.source.stored
        samples = read_calibration(None, stored) if self._recipe.is_calibrated else None
        held_out = None if self.is_quick else read_domains(stored)
        job = self._job_on(choose_device(request.device), samples, held_out)
        if request.device == "auto" and job.how.device.type != "cpu" and job.lack_of_memory():
            return self._job_on(choose_device("cpu"), samples, held_out)
        return job

    def _job_on(
        self, device: torch.device, samples: Calibration | None, held_out: HeldOut | None
    ) -> Job:
        how = ComputeSettings(device, choose_dtype("auto", device), candidates("reference"))
        record = None
        if held_out and self.source.repository:
            place = self.source.workshop / f"{self.origin.name}.held-out"
            record = SourceRecord(self.source.stored, held_out.windows, how, place)
        return Job(
            self.source.stored,
            self.output,
            self._recipe,
            how,
            samples,
            held_out,
            can_limit=False,
            record=record,
            note=lambda directory: self.origin.write(directory / ORIGIN),
        )

    def _cost(self) -> Costs:
        sizes = self._schedule.sizes
        fetched = [sizes[name] for name in self._schedule.order if self.source.repository]
        if self._job is None:
            return Costs(sum(fetched), len(fetched), 0, sum(fetched), 0, 0, (0.0, 0.0), "")
        output = total_bytes(lay_out(self.source.stored, self._formats))
        shards = sum(fetched) if self._keep else self._schedule.limit if fetched else 0
        record = self._job.record
        cost = making_cost(
            self._formats,
            self.source.stored.config,
            calibrated=self._recipe.is_calibrated,
            measured=self._job.held_out is not None,
            card=_card_rates(self._job),
            card_bytes=1 << 50,  # the job is on the card only where it holds the run
        )
        states = self._job.disk_bytes + (record.disk_bytes if record else 0)
        memory = self._job.memory_bytes
        seconds = cost.card_seconds or cost.seconds
        where = "this card" if cost.card_seconds else "two CPU cores"
        return Costs(sum(fetched), len(fetched), output, shards, states, memory, seconds, where)

    def _bytes_there(self) -> int:
        partial = partial_directory(self.output)
        return sum(disk_bytes(each) for each in (self.source.workshop, partial) if each.is_dir())

    @contextmanager
    def _supplying(self, progress: QuantizeProgress) -> Iterator[ShardSupply | None]:
        """Fetch shards until the block ends; None where all are on this machine."""
        repository = self.source.repository
        if repository is None:
            yield None
            return
        supply = ShardSupply(
            self.source.stored.directory,
            repository,
            self._schedule,
            self._parts,
            self.source.url,
            keep=self._keep,
            fetched=progress.fetched,
        )
        try:
            yield supply
        finally:
            supply.close()

    def _quantize(self, job: Job, supply: ShardSupply | None, progress: QuantizeProgress) -> None:
        if supply is None:
            return job.run(progress, overwrite=False)
        there = disk_bytes(self.source.workshop)
        record = job.record
        beside = self.costs.shard_bytes + (record.disk_bytes if record else 0)
        job.with_shards(
            ByShards(
                supply,
                max(beside - there, 0),
                record.observe if record else lambda weights: None,
            )
        ).run(progress, overwrite=False)
        if self._keep:
            origin = Origin(self.source.name, self.source.commit, "bf16")
            if not (self._store.directory / origin.name).exists():
                self._publish(supply, self._store.directory / origin.name, origin)

    def _publish(self, supply: ShardSupply | None, output: Path, origin: Origin) -> None:
        """Make an entry of the source's own files, when all of them are there."""
        if supply is None or self.source.repository is None:
            raise CheckpointError(
                f"{self.source.stored.directory} is on this machine: name this directory instead"
            )
        supply.bring_all()
        directory = self.source.stored.directory
        for file in (directory / MIRRORED, *directory.glob(f".*{WHOLE}")):
            file.unlink(missing_ok=True)
        StoredModel.open(directory)
        origin.write(directory / ORIGIN)
        sums = {name: file.sha256 for name, file in self.source.repository.files.items()}
        known = {name: digest for name, digest in sums.items() if digest}
        write_checksums(directory, leave_out=(CHECKSUMS,), known=known)
        os.replace(directory, output)


def _card_rates(job: Job) -> CardRates | None:
    """Return what this machine's card computes a second, where the run is on it and it is known."""
    card = find_machine_card() if job.how.device.type == "cuda" else None
    if card is None or card.gpu is None:
        return None
    return CardRates(card.gpu.matrix_tflops * 1e12, card.gpu.fp32_tflops * 1e12)


def about_quick() -> str:
    """Say what rounding without samples loses."""
    return (
        "--quick rounds to nearest without samples, which loses more: on the demo model the "
        "perplexity of INT4 rises by 24 % instead of 4 % (benchmarks/RESULTS.md)"
    )
