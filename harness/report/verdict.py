"""The one verdict of a page, over the runs that can be compared: what to use, and how sure that is.

PyTorch's own kernel is what a reader would use otherwise. Where a run did not measure it, nothing follows
from that run about what to use, however fast its fastest design is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.history import ONE_ROW
from harness.analysis.peers import over_stock
from harness.analysis.report import Report, Run
from harness.analysis.results import Winner
from harness.analysis.work import wherever_traces_lie
from harness.records import PYTORCH, STOCK, TUNABLES, Variant
from harness.report import libraries, names

SERVED = ("fused@13.0",)
"""Contestants whose very kernels `make wheel` puts into embedding-kernels."""


@dataclass(frozen=True)
class Verdict:
    """What comparable runs speak for."""

    variant: Variant
    use: bool
    """Whether to use it: PyTorch's own kernel was measured beside it."""
    where: str
    """On how many datasets it is fastest, or as fast as the fastest."""
    over: list[str]
    """How many times as fast as each other library, in words."""
    swept: str
    """The same of every workload that these runs sweep over, in words; empty where there is one."""
    runs: list[Run]
    """That it rests on; all on one kind of GPU, of the same work and with the caches in the same state."""
    code: str
    """One line that uses it; empty where there is nothing to type."""
    made_by: str
    """The command that makes what the line needs; empty where none is needed."""

    @property
    def sentence(self) -> str:
        """All of it but the code."""
        over = f", {' and '.join(self.over)}" if self.over else ""
        over += f"; {self.swept}" if self.swept else ""
        if self.use:
            return f"{self.where}{over}."
        lacking = "PyTorch's own kernel was not measured beside it, so this does not say what to use"
        return f"{self.where}{over}; {lacking}."


def of(report: Report) -> Verdict | None:
    """The verdict of a page; None where nothing won."""
    groups: dict[tuple[str, object, str], list[Run]] = {}
    for run in report.runs:
        if _won(run):
            work = wherever_traces_lie(run.protocol.workload)
            alike = names.where(run), work, run.protocol.timing.cache
            groups.setdefault(alike, []).append(run)
    having = [[run for run in group if has_stock(run)] for group in groups.values()]
    # Who measured more libraries knows better what to use; of equals, who did on more datasets, with more
    # contestants, and those that were named first.
    group = max(filter(None, having), key=_breadth, default=None) or next(iter(groups.values()), None)
    return _of(group) if group else None


def _breadth(runs: Sequence[Run]) -> tuple[int, int, int]:
    """How many libraries, datasets and contestants a group of runs measured."""
    return (
        len({design for run in runs for design in libraries.designs(run)}),
        len({dataset for run in runs for dataset in run.datasets}),
        len({variant for run in runs for variant in run.variants}),
    )


def has_stock(run: Run) -> bool:
    """Whether today's PyTorch was measured beside the others."""
    return any(run.peer(STOCK, dataset) for dataset in run.datasets)


def over_libraries(run: Run, variant: Variant, dataset: str, metric: str) -> dict[str, list[float]]:
    """By library how many times as fast as its fastest path a variant is, with the interval; without the
    library that it is a path of itself."""
    found = {}
    for design in libraries.designs(run):
        peer = run.peer(design, dataset, metric)
        if peer and variant.design != design and (told := over(run, peer.variant, variant, dataset, metric)):
            found[libraries.name(design)] = told
    return found


def over(run: Run, rival: Variant, variant: Variant, dataset: str, metric: str) -> list[float] | None:
    """How many times as fast as a rival a variant is, with the interval; None where one was not measured."""
    # Where nothing is prepared, prepare + kernel is the kernel alone, and told under that name.
    ratios = run.ratios.get(metric) or run.ratios.get(run.compared[0])
    if ratios is None:
        return None
    return ratios[run.variants.index(rival)][run.variants.index(variant)][run.datasets.index(dataset)]


def spread(ratios: Sequence[float]) -> str:
    """From the least to the largest, for example "3.82 to 8.41"."""
    low, high = (f"{value:.2f}" for value in (min(ratios), max(ratios)))
    return low if low == high else f"{low} to {high}"


def gains(library: str, of_datasets: Mapping[str, Sequence[float]]) -> str:
    """The range of what was gained, of ratios with their intervals by dataset, in words, and where that is a
    loss. What one row's address may have made is not the most of it."""
    ratios = {dataset: found[0] for dataset, found in of_datasets.items()}
    usual = [ratio for dataset, ratio in ratios.items() if dataset != ONE_ROW]
    more = bool(usual) and ratios.get(ONE_ROW, 0) > max(usual)
    lost = [dataset for dataset, found in of_datasets.items() if is_loss(found)]
    told = [f"more on {ONE_ROW}"] * more + [f"slower on {' and '.join(lost)}"] * bool(lost)
    remarks = f" ({', '.join(told)})" if told else ""
    return f"{spread(usual if more else list(ratios.values()))} × {library}{remarks}"


def is_loss(ratio: Sequence[float]) -> bool:
    """Whether a speedup with its interval says slower beyond doubt."""
    return ratio[2] < 1


def lost_elsewhere(report: Report) -> list[str]:
    """Where on the page, in runs that the verdict does not rest on, its variant is slower than a library
    beyond doubt: "float16 on high (0.96 × FBGEMM)". Of each run its own workload, not what it sweeps."""
    found = of(report)
    told = []
    for run in report.runs:
        if found is None or run in found.runs or found.variant not in run.variants:
            continue
        for dataset in run.datasets:
            for library, ratio in over_libraries(run, found.variant, dataset, run.headline).items():
                if is_loss(ratio):
                    told.append(f"{run.name} on {dataset} ({ratio[0]:.2f} × {library})")
    return told


def _won(run: Run) -> bool:
    return any((w := run.winner(dataset, run.headline)) and w.rivals for dataset in run.datasets)


def _of(runs: list[Run]) -> Verdict:
    """Of runs that can be compared. Of a dataset that several measured that run counts whose winner is
    furthest ahead of PyTorch: within a run everything was measured side by side, between runs nothing was."""
    best: dict[str, tuple[float, Run, Winner]] = {}
    for run in runs:
        for dataset in run.datasets:
            won = run.winner(dataset, run.headline)
            if won and won.rivals:
                ahead = run.figure(won.variant, dataset, over_stock(run.headline))
                score = ahead.value if ahead else 1.0
                if dataset not in best or score > best[dataset][0]:
                    best[dataset] = score, run, won
    winners = [won for _, _, won in best.values()]
    counts = Counter(variant for won in winners for variant in (won.variant, *won.ties))
    outright = Counter(won.variant for won in winners)
    variant = max(counts, key=lambda one: (counts[one], outright[one]))
    having = {dataset: run for dataset, (_, run, _) in best.items() if variant in run.variants}
    used = list({run.name: run for run in having.values()}.values())
    told: dict[str, dict[str, list[float]]] = {}
    for dataset, run in having.items():
        for library, over in over_libraries(run, variant, dataset, run.headline).items():
            told.setdefault(library, {})[dataset] = over
    code, made_by = _code(used[0], variant)
    return Verdict(
        variant=variant,
        use=any(map(has_stock, used)),
        where=f"fastest {_where(counts[variant], list(best))}"
        + (
            ""
            if outright[variant] == counts[variant]
            else ", on some with others that cannot be told from it"
        ),
        over=[gains(library, ratios) for library, ratios in told.items()],
        swept=_swept(used, variant),
        runs=used,
        code=code,
        made_by=made_by,
    )


def _swept(runs: Sequence[Run], variant: Variant) -> str:
    """How many times as fast as each library over all workloads of the runs' sweeps."""
    found: dict[str, list[float]] = {}
    places = set()
    for run in runs:
        for beside in run.sweep.beside_peers if run.sweep else []:
            if beside.variant == variant:
                places.add((run.name, beside.point, beside.dataset))
                found.setdefault(libraries.name(beside.library), []).append(beside.ratio.value)
    if len({point for _, point, _ in places}) < 2:
        return ""
    told = " and ".join(f"{spread(ratios)} × {library}" for library, ratios in found.items())
    return f"over all {len(places)} shapes and datasets {told}"


def _where(count: int, datasets: Sequence[str]) -> str:
    if len(datasets) == 1:
        return f"on {datasets[0]}"
    return (
        f"on {'both' if len(datasets) == 2 else f'all {len(datasets)}'} datasets"
        if count == len(datasets)
        else f"on {count} of {len(datasets)} datasets"
    )


def _code(run: Run, variant: Variant) -> tuple[str, str]:
    if variant.toolchain == PYTORCH:
        own = {kernel.name for kernel in run.kernels(variant)} == {PYTORCH}
        return ("torch.nn.EmbeddingBag(...)  # PyTorch as it is" if own else ""), ""
    folder = f"compiled/{variant.design}-{variant.toolchain}"
    settings = next(place.settings for place in run.places if place.variant == variant)
    swept = {key.removeprefix(TUNABLES): value for key, value in settings.items() if key.startswith(TUNABLES)}
    set_ = dict(sorted({**variant.tunables, **swept}.items()))
    if variant.label in SERVED and not set_:
        return (
            "model = embedding_kernels.optimize(model)",
            "make wheel; pip install dist/embedding_kernels-*.whl",
        )
    code = f'patch.apply(Path("{folder}"){f", {set_}" if set_ else ""})'
    if any(cell.single_launch for cell in run.cells_at(variant)):
        code += "; out = patch.embedding_bags(weights, indices, offsets)"
    return code, f"harness compile {variant.design} --toolchain {variant.toolchain} --output compiled"
