"""What paid work will cost, before it begins: an interval, from what this model took so far or from a few prompts."""

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.engines import FuserConfig, prompt_name
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.prompts import load_template, render

SAMPLE = 200  # prompts
HISTORY = 30  # rows that a model must have answered before they tell more than the prompts
BYTES_PER_TOKEN = (2.5, 6.0)  # of prompts in any language, dear and cheap


@dataclass(frozen=True, slots=True)
class Forecast:
    """Tokens and dollars for `rows`, each as (low, high), and what they follow from."""

    rows: int
    tokens: tuple[float, float]
    usd: tuple[float, float]
    basis: str

    def __str__(self) -> str:
        (low, high), (cheap, dear) = self.tokens, self.usd
        return f"{_count(low)} to {_count(high)} tokens, ${cheap:,.2f} to ${dear:,.2f}, {self.basis}"


def forecast(lake: Lake, config: FuserConfig, strategy: str, due: DataFrame, rows: int) -> Forecast:
    """What fusing `rows` rows like those of `due` will take.

    With a history the interval holds 95 times of 100, if the rows to come are like those that were; without one it
    goes from the cheapest to the dearest that is plausible.
    """
    mine = (F.col("engine") == config.name) & (F.col("model") == config.model) & (F.col("strategy") == strategy)
    history = lake.read("fused_captions").where(mine & (F.col("prompt_tokens") > 0))
    n, read, sd_read, written, sd_written = history.agg(
        F.count("*"), F.avg("prompt_tokens"), F.stddev("prompt_tokens"), F.avg("completion_tokens"),
        F.stddev("completion_tokens"),
    ).collect()[0]  # fmt: skip
    if n >= HISTORY:
        spread = 1.96 * (rows * (1 + rows / n)) ** 0.5  # of a sum of `rows` draws around a mean known from n
        reads = _interval(rows * read, spread * sd_read)
        writes = _interval(rows * written, spread * sd_written)
        return _priced(config, rows, reads, writes, f"from {n:,} rows that {config.model} answered")
    sample = due.limit(SAMPLE).collect()
    template = load_template(prompt_name(config, strategy))
    prompts = [render(template, row["raw_caption"], row["synthetic_caption"] or "") for row in sample]
    size = sum(len(p.encode()) for p in prompts) / max(len(prompts), 1)
    answer = sum(len(row["raw_caption"].encode()) for row in sample) / max(len(sample), 1)
    image = config.image_tokens if config.sees_image else 0
    dense, sparse = BYTES_PER_TOKEN
    reads = (rows * size / sparse, rows * (size / dense + image) * (1 + 0.5 * min(config.retries, 1)))
    writes = (rows * min(answer / sparse, config.max_new_tokens), rows * config.max_new_tokens * 1.5)
    return _priced(config, rows, reads, writes, f"from {len(prompts)} prompts; nothing was asked yet")


def _interval(middle: float, spread: float) -> tuple[float, float]:
    return max(0.0, middle - spread), middle + spread


def _priced(
    config: FuserConfig, rows: int, reads: tuple[float, float], writes: tuple[float, float], basis: str
) -> Forecast:
    low, high = (config.cost(int(r), int(w)) for r, w in zip(reads, writes, strict=True))
    return Forecast(rows, (reads[0] + writes[0], reads[1] + writes[1]), (low, high), basis)


def _count(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f} {letter}"
    return f"{number:.0f}"
