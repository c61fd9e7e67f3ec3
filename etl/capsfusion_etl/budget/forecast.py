"""Forecast of the cost of paid work: an interval, from this model's earlier rows or from a sample of prompts."""

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.engines import FuserConfig, prompt_name
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.prompts import load_template, render

SAMPLE = 200  # prompts that are rendered if there is no history
HISTORY = 30  # earlier rows of a model from which on they predict better than prompts
BYTES_PER_TOKEN = (2.5, 6.0)  # lowest and highest plausible value for prompts in any language


@dataclass(frozen=True, slots=True)
class Forecast:
    """Tokens and dollars for `rows` rows, each as (low, high); `basis` says what they are derived from."""

    rows: int
    tokens: tuple[float, float]
    usd: tuple[float, float]
    basis: str

    def __str__(self) -> str:
        (low, high), (cheap, dear) = self.tokens, self.usd
        return f"{_count(low)} to {_count(high)} tokens, ${cheap:,.2f} to ${dear:,.2f}, {self.basis}"


def forecast(lake: Lake, config: FuserConfig, strategy: str, due: DataFrame, rows: int) -> Forecast:
    """Forecast the cost of fusing `rows` rows like those of `due`.

    With at least HISTORY earlier rows of this engine, model and strategy, the result is a 95 % prediction interval for
    the totals, under the assumption that the next rows resemble the earlier ones. Otherwise it spans the plausible
    bytes per token, answer lengths and retries for a sample of at most SAMPLE prompts.
    """
    mine = (F.col("engine") == config.name) & (F.col("model") == config.model) & (F.col("strategy") == strategy)
    history = lake.read("fused_captions").where(mine & (F.col("prompt_tokens") > 0))
    n, read, sd_read, written, sd_written = history.agg(
        F.count("*"), F.avg("prompt_tokens"), F.stddev("prompt_tokens"), F.avg("completion_tokens"),
        F.stddev("completion_tokens"),
    ).collect()[0]  # fmt: skip
    if n >= HISTORY:
        spread = 1.96 * (rows * (1 + rows / n)) ** 0.5  # of a sum of `rows` draws, its mean estimated from n
        reads = _interval(rows * read, spread * sd_read)
        writes = _interval(rows * written, spread * sd_written)
        return _priced(config, rows, reads, writes, f"based on {n:,} earlier rows of {config.model}")
    sample = due.limit(SAMPLE).collect()
    template = load_template(prompt_name(config, strategy))
    prompts = [render(template, row["raw_caption"], row["synthetic_caption"] or "") for row in sample]
    size = sum(len(p.encode()) for p in prompts) / max(len(prompts), 1)
    answer = sum(len(row["raw_caption"].encode()) for row in sample) / max(len(sample), 1)
    image = config.image_tokens if config.sees_image else 0
    dense, sparse = BYTES_PER_TOKEN
    reads = (rows * size / sparse, rows * (size / dense + image) * (1 + 0.5 * min(config.retries, 1)))
    writes = (rows * min(answer / sparse, config.max_new_tokens), rows * config.max_new_tokens * 1.5)
    return _priced(config, rows, reads, writes, f"estimated from {len(prompts)} prompts: too few earlier rows")


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
