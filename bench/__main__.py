"""`python -m bench`: our hot paths beside the machine's own limit, as ratios, in one run. See bench/README.md."""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import evm_catch_up, measure, parts, volume

Row = tuple[str, str, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which the medians are shown")
    parser.add_argument("--seconds", type=int, default=8, help="length of one measurement")
    parser.add_argument("--charges", type=int, default=100_000, help="charges before memory is read; 0 leaves it out")
    parser.add_argument("--rows", type=int, default=10_000_000, help="charges and entries of the part `volume`")
    parser.add_argument("--only", nargs="*", choices=sorted(_PARTS), default=sorted(_PARTS))
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory, parts.postgresql() as url, Progress() as progress:
        bench = Bench(url, Path(directory) / "server.log", options, progress)
        for name in options.only:
            rows += _PARTS[name](bench)
    table = Table("what", "ours", "beside it", "ratio or figure", title="keyserver bench, medians")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


class Bench:
    def __init__(self, url: str, log: Path, options: argparse.Namespace, progress: Progress) -> None:
        self.url, self.log, self.options, self.progress = url, log, options, progress
        with parts.keyserver(url, log):  # migrates
            measure.prepare(url)

    def median(self, what: str, once: Callable[[], tuple[float, float, float]]) -> tuple[float, float, float]:
        """Medians of (ours, beside it, p99) over the rounds, and the median of the rounds' own ratios."""
        task = self.progress.add_task(what, total=self.options.rounds)
        rounds = []
        for _ in range(self.options.rounds):
            rounds.append(once())
            self.progress.advance(task)
        ours, beside, third = (statistics.median(column) for column in zip(*rounds, strict=True))
        return ours, beside, third

    def growing(self, what: str, rows: int) -> Callable[[int], None]:
        """For a fill of so many rows: told how many more are there, shows it."""
        task = self.progress.add_task(what, total=rows)
        return lambda done: self.progress.advance(task, done)

    # --- parts --------------------------------------------------------------------------------------------------

    def http(self) -> list[Row]:
        seconds = self.options.seconds
        rows: list[Row] = []
        with parts.keyserver(self.url, self.log) as running:
            for what, ours, limit in (
                ("POST /charges", measure.charges, measure.pgbench_charges),
                ("POST /address", measure.addresses, measure.pgbench_addresses),
            ):

                def once(
                    ours: Callable[..., parts.Load] = ours, limit: Callable[..., float] = limit
                ) -> tuple[float, float, float]:
                    beside = limit(self.url, seconds)
                    load = ours(running, seconds)
                    if load.errors:
                        raise RuntimeError(f"{load.errors} requests failed; see {self.log}")
                    return load.per_second, beside, load.p99_ms

                mine, beside, p99 = self.median(what, once)
                rows.append(
                    (f"{what}, p99 {p99:.0f} ms", f"{mine:,.0f}/s", f"pgbench {beside:,.0f}/s", f"{mine / beside:.3f}")
                )

            def chains() -> tuple[float, float, float]:
                return *measure.chains_over_bare(running, seconds, self.log), 0.0

            mine, beside, _ = self.median("GET /chains", chains)
            rows.append(("GET /chains", f"{mine:,.0f}/s", f"bare FastAPI {beside:,.0f}/s", f"{mine / beside:.2f}"))
        return rows

    def ledger(self) -> list[Row]:
        rows: list[Row] = []
        seconds = self.options.seconds
        for tenants in (1, 100, 10_000):

            def once(tenants: int = tenants) -> tuple[float, float, float]:
                beside = measure.pgbench_postings(self.url, seconds, tenants=tenants)
                return measure.postings(self.url, seconds, tenants=tenants), beside, 0.0

            mine, beside, _ = self.median(f"postings, {tenants} tenants", once)
            what = f"ledger postings, 32 concurrent, {tenants:,} tenants"
            rows.append((what, f"{mine:,.0f}/s", f"pgbench {beside:,.0f}/s", f"{mine / beside:.2f}"))
        return rows

    def process(self) -> list[Row]:
        starts = []
        for _ in range(self.options.rounds):
            with parts.keyserver(self.url, self.log) as running:
                starts.append(running.seconds_to_first_200)
        rows: list[Row] = [("start to first 200 on /chains", f"{statistics.median(starts):.2f} s", "", "")]
        if self.options.charges:
            with parts.keyserver(self.url, self.log) as running:
                megabytes = measure.memory_after(running, self.options.charges)
            listed = ", ".join(f"{each:.0f}" for each in megabytes)
            rows.append((f"resident memory after {self.options.charges:,} charges", f"{listed} MB", "", ""))
        return rows

    def volume(self) -> list[Row]:
        """The same calls over little and over much. Wants about 1 GB of disk for every million rows."""
        rows_wanted: int = self.options.rows
        url = volume.another_database(self.url, "volume")
        seconds = self.options.seconds

        def posts(running: parts.Running) -> float:
            return statistics.median(measure.charges(running, seconds).per_second for _ in range(self.options.rounds))

        with parts.keyserver(url, self.log) as running:
            empty = posts(running)
        volume.fill_history(url, rows_wanted, told=self.growing(f"filling {rows_wanted:,} rows", rows_wanted))
        with parts.keyserver(url, self.log) as running:
            full = posts(running)
            charges = volume.page_ratio(running, "/charges", volume.charge_cursor, rows_wanted)
            entries = volume.page_ratio(running, "/ledger/entries", str, rows_wanted)
        many = f"{rows_wanted:,}"
        return [
            (
                f"POST /charges over {many} charges",
                f"{full:,.0f}/s",
                f"over none {empty:,.0f}/s",
                f"{full / empty:.2f}",
            ),
            (f"GET /charges, any page of {many} over the first", "", "", f"{charges:.2f}"),
            (f"GET /ledger/entries, any page of {many} over the first", "", "", f"{entries:.2f}"),
        ]

    def block(self) -> list[Row]:
        few, many = 1_000, 1_000_000
        url = volume.another_database(self.url, "block")
        with parts.keyserver(url, self.log):
            pass  # migrates, and registers the demo chains
        volume.grow_addresses(url, 1, few, told=self.growing(f"{few:,} addresses", few))
        small = volume.block_seconds(url, few)
        volume.grow_addresses(url, few + 1, many, told=self.growing(f"{many:,} addresses", many))
        large = volume.block_seconds(url, many)
        what = f"a block of {volume.BLOCK_OUTPUTS:,} outputs, {many:,} addresses over {few:,}"
        return [(what, f"{large * 1000:.0f} ms", f"{small * 1000:.0f} ms", f"{large / small:.2f}")]

    def evm_catch_up(self) -> list[Row]:
        def once() -> tuple[float, float, float]:
            return *evm_catch_up.catch_up(), 0.0

        mine, beside, _ = self.median("EVM catch-up", once)
        return [("EVM catch-up, blocks", f"{mine:,.0f}/s", f"anvil alone {beside:,.0f}/s", f"{mine / beside:.2f}")]


_PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "evm_catch_up": Bench.evm_catch_up,
    "http": Bench.http,
    "ledger": Bench.ledger,
    "process": Bench.process,
    "block": Bench.block,
    "volume": Bench.volume,
}

if __name__ == "__main__":
    main()
