"""The sections of the benchmark: each measures, prints its table and returns its figures and verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import nan
from pathlib import Path
from typing import Any

from benchmarks import huge as measured_huge
from benchmarks import picture
from benchmarks import uploads as measured_uploads
from benchmarks.batches import Batches
from benchmarks.costs import measure_costs
from benchmarks.driver import Driver
from benchmarks.edge import measure_added
from benchmarks.events import measure_outage
from benchmarks.footprint import REPLICA, measure_footprint
from benchmarks.growth import draw_growth, measure_growth
from benchmarks.queue import measure_queue
from benchmarks.report import Verdict, number, table
from benchmarks.service import RESNET, SHAPES, Service, environment_for
from benchmarks.telemetry import RATIOS, measure_telemetry
from camserve_server.engine.manifest import Precision

PLOTS = Path("build", "plots")
RATIO = "engine with / without CAM"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure."""

    rounds: int
    quick: bool
    precision: Precision = "float32"


@dataclass(frozen=True, slots=True)
class Place:
    """Where to measure: a folder of the run's own, the models in it, the bundled model, and who hears of progress."""

    folder: Path
    models_dir: Path
    shapes: Path
    progress: Callable[[str], None]

    def environment(self, name: str) -> dict[str, str]:
        """Returns the environment of a child that uses the server's parts."""
        return environment_for(self.folder / name, self.models_dir)

    def photo(self) -> Path:
        """Returns the picture that is sent."""
        path = self.folder / "photo.jpg"
        if not path.exists():
            path.write_bytes(picture.photo())
        return path


@dataclass(slots=True)
class Findings:
    """What a section found: figures for machines, verdicts for the end of the report."""

    figures: Any
    verdicts: list[Verdict] = field(default_factory=list)


def footprint(place: Place, plan: Plan) -> Findings:
    """Start-up and idle memory."""
    place.progress("starting the stack with the bundled model")
    starts, idle_s = (1, 5.0) if plan.quick else (2, 60.0)
    found = measure_footprint(place.folder / "footprint", place.shapes, starts, idle_s)
    rows = [
        (name, *(number(size) for size in (memory.rss_mb, memory.once_mb, memory.pss_mb)))
        for name, memory in found.memory.items()
    ]
    print(table("Idle memory with shapes, MB", ("processes", "RSS", "shared pages once", "PSS"), rows))
    print(f"\nProcessor time of a minute in which nobody calls, all processes: {found.idle_cpu_s:.1f} s")
    return Findings(
        asdict(found),
        [
            Verdict("idle memory of a replica with its workers", found.memory[REPLICA].once_mb, 700, " MB"),
            Verdict("start of the stack until healthy", found.startup_s, 15, " s"),
        ],
    )


def stages(place: Place, plan: Plan) -> Findings:
    """Every stage alone."""
    figures: dict[str, dict[str, float]] = {}
    with Driver("stages", place.folder, place.environment("stages")) as driver:
        driver.hello()
        for model, seconds in ((SHAPES, 4.0), (RESNET, 12.0)):
            place.progress(f"stages alone, {model}")
            figures[model] = driver.ask(
                picture=str(place.photo()), model=model, seconds=seconds / 2 if plan.quick else seconds
            )
    rows = [(stage, *(number(figures[model][stage]) for model in figures)) for stage in figures[RESNET]]
    print(table("Each stage alone, ms per image", ("stage", *figures), rows))
    verdicts = [
        Verdict(f"{RATIO}, {model}, batch {count}", figures[model][f"{RATIO}, batch {count}"], 1.10)
        for model, count in ((RESNET, 1), (RESNET, 8))
    ]
    return Findings(figures, verdicts)


def edge(place: Place, plan: Plan, service: Service) -> Findings:
    """What Envoy adds."""
    place.progress("calls through Envoy and around it")
    added = measure_added(service, picture.small_picture(), calls=100 if plan.quick else 300)
    rows = [
        (one.name, f"{one.direct_ms:.2f}", f"{one.proxied_ms:.2f}", f"{one.json_ms:.2f}", f"{one.json_adds_ms:+.2f}")
        for one in added
    ]
    header = ("call", "gRPC, direct", "gRPC through Envoy", "JSON through Envoy", "Envoy adds to JSON")
    print(table("One call at a time, p50 in ms", header, rows))
    verdicts = [Verdict(f"Envoy adds to {one.name}, p50", one.json_adds_ms, 1.0, " ms") for one in added]
    return Findings([asdict(one) for one in added], verdicts)


def growth(place: Place, plan: Plan) -> Findings:
    """What there may be more of."""
    found = measure_growth(
        place.folder, place.models_dir, place.photo(), rounds=1 if plan.quick else plan.rounds, report=place.progress
    )
    draw_growth(found, PLOTS)
    for name, values in found.batches.items():
        rows = [(str(count), number(value), number(value / values[1])) for count, value in values.items()]
        print(table(f"Engine alone, {name}, pictures a second", ("in a batch", "pictures/s", "/ one by one"), rows))
    title = "Service, shapes with CAM, images a second"
    for kind, counted in (("callers", found.callers), ("tenants, 32 callers", found.tenants)):
        print(table(title, (kind, "images/s"), [(str(count), number(value)) for count, value in counted.items()]))
    rows = [(str(count), number(value), number(found.memory_mb[count])) for count, value in found.models.items()]
    print(table(title, ("models loaded, 8 callers", "images/s", "MB of the replica"), rows))
    print(f"\nDrawn in {PLOTS / 'growth.svg'}")
    most, one = max(found.models), min(found.models)
    verdicts = [
        Verdict(
            "throughput with 16 models loaded / with one", found.models[most] / found.models[one], 0.9, at_least=True
        ),
        Verdict("throughput of 32 tenants / of one", found.tenants[32] / found.tenants[1], 0.9, at_least=True),
    ]
    return Findings(asdict(found), verdicts)


def telemetry(place: Place, plan: Plan) -> Findings:
    """What traces take of throughput."""
    place.progress("starting services with and without traces")
    shares = measure_telemetry(
        place.folder / "telemetry",
        place.models_dir,
        place.photo(),
        rounds=2 if plan.quick else 2 * plan.rounds,
        seconds=1.5 if plan.quick else 4.0,
        report=place.progress,
    )
    named = {f"{SHAPES}, {'with' if cam else 'no'} CAM": cam for cam in (True, False)}
    rows = [(title, *(number(shares[cam, ratio]) for ratio in RATIOS[1:])) for title, cam in named.items()]
    print(table("Throughput with traces, share of that without", ("load", "a tenth recorded", "all recorded"), rows))
    return Findings(
        {f"{title}, {ratio:g}": shares[cam, ratio] for title, cam in named.items() for ratio in RATIOS[1:]},
        [
            Verdict(f"traces, a tenth recorded / none, {title}", shares[cam, 0.1], 0.97, at_least=True)
            for title, cam in named.items()
        ],
    )


def costs(place: Place, plan: Plan, service: Service) -> Findings:
    """What a call costs each part."""
    place.progress("what a call costs each part")
    found = measure_costs(service, picture.photo(), SHAPES, calls=64 if plan.quick else 256)
    parts = tuple(found[0].cpu_ms)
    rows = [
        (one.way, *(number(one.cpu_ms[part]) for part in parts), number(one.commands), number(one.object_bytes / 1e6))
        for one in found
    ]
    header = ("an image, shapes", *parts, "store, commands", "objects, MB")
    print(table("What an image costs each part, ms of a core", header, rows))
    return Findings([asdict(one) for one in found])


def queue(place: Place, plan: Plan) -> Findings:
    """The queue of jobs alone."""
    place.progress("the queue of jobs alone")
    sizes = (1_000, 10_000) if plan.quick else (1_000, 10_000, 100_000)
    found = measure_queue(place.folder / "queue", sizes)
    rows = [(f"{one.items:,}", number(one.submitted_per_s), number(one.finished_per_s)) for one in found]
    print(table("The queue alone, items a second", ("items queued", "accepted", "claimed and finished"), rows))
    return Findings(
        [asdict(one) for one in found],
        [
            Verdict(
                "items claimed and finished by the queue alone", found[-1].finished_per_s, 5_000, "/s", at_least=True
            ),
            Verdict("cost of an item, most / fewest queued", found[0].finished_per_s / found[-1].finished_per_s, 1.25),
        ],
    )


def events(place: Place, plan: Plan) -> Findings:
    """Events about jobs through an outage of their receiver: in real time, or with pauses a 30th as long."""
    place.progress("events through an outage")
    count, outage_s, compressed = (1_000, 10.0, 30.0) if plan.quick else (10_000, 300.0, 1.0)
    found = measure_outage(place.folder / "events", count, outage_s, compressed)
    rows = [
        ("events", number(found.events)),
        ("outage, s", number(found.outage_s)),
        ("sent twice", number(found.copies)),
        ("most attempts for one event", number(found.most_attempts)),
        ("from the end of the outage until all had arrived, s", number(found.all_arrived_s)),
    ]
    print(table("Events through an outage of their receiver", ("", ""), rows))
    return Findings(asdict(found), [Verdict("events lost through the outage", found.lost, 0)])


def jobs(place: Place, plan: Plan, service: Service) -> Findings:
    """Jobs: accepted, worked on, and fair."""
    place.progress("jobs, accepted and finished")
    small = picture.small_picture()
    batches = Batches(service)
    rounds = 1 if plan.quick else 3
    submission = batches.submission(small, SHAPES, 50 if plan.quick else 200)
    place.progress("jobs beside calls")
    photo = place.photo().read_bytes()
    paces = [batches.pace(photo, SHAPES, 256, rounds), batches.pace(photo, RESNET, 128, rounds)]
    place.progress("a small job behind a flood")
    flood, times = (2_560, 3) if plan.quick else (10_240, 7)
    medium = picture.photo(640, 480)
    cases = [("96 x 96", small, SHAPES), ("640 x 480", medium, SHAPES), ("640 x 480", medium, RESNET)]
    delays = [
        (f"{size}, {model}", batches.delay(data, model, flood, times if model == RESNET else 3 * times))
        for size, data, model in cases[: 1 if plan.quick else 3]
    ]
    batches.close()
    rows = [
        ("accepted (202), on the disk", number(submission.accepted_ms)),
        ("finished", number(submission.finished_ms)),
    ]
    print(table("A job with one small picture, one at a time, p50 in ms", ("", "ms"), rows))
    print(
        table(
            "The same pictures as calls and as jobs of 32, s",
            ("pictures", "8 calls at once", "jobs", "ratio"),
            [
                (f"{one.model}, {one.pictures}", number(one.calls_s), number(one.job_s), number(one.ratio))
                for one in paces
            ],
        )
    )
    print(
        table(
            "A job of 10 pictures, s",
            ("pictures", "another tenant has queued", "alone", "behind it", "ratio"),
            [
                (name, f"{one.flood:,}", number(one.alone_s), number(one.behind_s), number(one.ratio))
                for name, one in delays
            ],
        )
    )
    verdicts = [Verdict("submit until 202, gRPC, one small input, p50", submission.accepted_ms, 10, " ms")]
    verdicts += [
        Verdict(f"throughput of jobs / 8 calls at once, {one.model}", one.ratio, 0.95, at_least=True) for one in paces
    ]
    verdicts += [
        Verdict(f"10 images behind {one.flood:,} of another tenant / alone, {name}", one.ratio, 2)
        for name, one in delays
    ]
    figures = {
        "submission": asdict(submission),
        "pace": [asdict(one) for one in paces],
        "delay": {name: asdict(one) for name, one in delays},
    }
    return Findings(figures, verdicts)


def uploads(place: Place, plan: Plan) -> Findings:
    """A picture of 0.8 GB, stored."""
    place.progress("a picture of 0.8 GB, stored")
    with Service(place.folder / "uploads", place.models_dir, measured_uploads.SETTINGS) as service:
        found = measured_uploads.measure_uploads(service, 1 if plan.quick else 3)
    rows = [
        ("a bare server that only counts", number(found.counted_mb_s), ""),
        ("gRPC, neither", number(found.received_mb_s), number(found.received_mb_s / found.counted_mb_s)),
        ("gRPC, hashed and encrypted", number(found.grpc_mb_s), number(found.grpc_mb_s / found.counted_mb_s)),
        ("REST through Envoy", number(found.rest_mb_s), number(found.rest_mb_s / found.counted_mb_s)),
    ]
    print(table("A picture of 0.8 GB, MB/s", ("", "MB/s", "of the bare one"), rows))
    print(table("Peak growth of each process, MB", ("process", "growth"), [(r, number(g)) for r, g in found.growth_mb]))
    greatest = max(growth for _, growth in found.growth_mb)
    return Findings(
        asdict(found),
        [
            Verdict(
                "upload over gRPC, neither hashed nor encrypted / bare server",
                found.received_mb_s / found.counted_mb_s,
                0.8,
                at_least=True,
            ),
            Verdict("upload over gRPC / bare server", found.grpc_mb_s / found.counted_mb_s, 0.5, at_least=True),
            Verdict("upload over REST / bare server", found.rest_mb_s / found.counted_mb_s, 0.5, at_least=True),
            Verdict("greatest growth of a process at 0.8 GB", greatest, 64, " MB"),
        ],
    )


def huge(place: Place, plan: Plan) -> Findings:
    """Pictures of 16k x 16k pixels."""
    place.progress("pictures of 16k x 16k pixels")
    with Service(place.folder / "huge", place.models_dir, measured_huge.SETTINGS) as service:
        found = measured_huge.measure_huge(service, place.folder, rounds=plan.rounds, quick=plan.quick)
    answers = found.answers()
    rows = [
        (
            one.name,
            number(one.file_mb),
            str(one.status),
            number(one.seconds),
            *(number(one.timings_ms.get(name, nan) / 1000) for name in ("total", "decode", "inference", "render")),
            number(one.beyond_file_mb()),
        )
        for one in answers
    ]
    header = (
        "form",
        "MB",
        "status",
        "s",
        "in the service",
        "decode",
        "inference",
        "render",
        "growth beyond the file, MB",
    )
    print(table("16k x 16k pixels by multipart, with a heatmap, seconds", header, rows))
    decoder, decoder_s = found.fastest()
    each = ", ".join(f"{one.ratio(decoder):.2f}" for one in found.jpeg)
    print(f"\nThe fastest decoder of the JPEG, alone: {decoder}, {decoder_s:.2f} s; the ratio, round by round: {each}")
    answered = sum(one.status == 200 for one in answers) / len(answers)
    growth_mb = max(one.answer.beyond_file_mb() for one in found.jpeg)
    return Findings(
        asdict(found),
        [
            Verdict("16k x 16k pictures answered with 200, share", answered, 1, at_least=True),
            Verdict("16k x 16k JPEG / fastest decoder and inference alone", found.jpeg_ratio(), 1.5),
            Verdict("growth for the JPEG beyond the file", growth_mb, 300, " MB"),
        ],
    )
