"""Fixtures for all tests. Tests that need Spark share one session; the others start no JVM."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from capsfusion_etl.lake.run import Run
    from pyspark.sql import SparkSession
    from transformers import PreTrainedTokenizerFast

pytest_plugins = ["s3_server", "dev_servers"]
# Spark sessions that tests start in other processes read it, too.
os.environ.setdefault("SPARK_CONF_DIR", str(Path(__file__).with_name("spark_conf")))

ROWS = [
    {"url": f"http://a.example/{i}.jpg", "raw_caption": text, "synthetic_caption": seen}
    for i, (text, seen) in enumerate(
        [
            ("Old Harbour Bridge Lisbon 1998 postcard", "A bridge over a body of water."),
            ("Anna Keller reads at the Oslo Book Fair", "A woman reading a book."),
            ("Station clock of Zurich at 08:45", "A clock on a wall."),
            ("Lawn in Kew Gardens, July 2019", "A green lawn."),
            ("Red dahlia, Ghent flower market", "A red flower."),
            ("", "A cat."),
            ("IMG_2041.jpg", "A dog."),
        ]
    )
]


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[SparkSession]":
    """A local session with Delta, created as the command line creates it."""
    from capsfusion_etl.spark.session import get_session

    session = get_session(tmp_path_factory.mktemp("spark") / "spark.log")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def empty_lake(spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty lake to copy: creating its tables takes seconds, copying them is fast."""
    from capsfusion_etl.lake.create import open_lake

    return Path(open_lake(spark, str(tmp_path_factory.mktemp("empty") / "lake")).root)


@pytest.fixture
def run(spark: "SparkSession", empty_lake: Path, tmp_path: Path) -> "Run":
    """A run over a new, empty lake."""
    from capsfusion_etl.lake.create import open_lake
    from capsfusion_etl.lake.run import Run

    return Run(open_lake(spark, str(shutil.copytree(empty_lake, tmp_path / "lake"))))


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pairs with synthetic captions, as JSONL; the filters must reject two of them."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="session")
def bridges(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Function that writes `count` pairs that pass every filter, with synthetic captions, as JSONL."""

    def write(count: int) -> Path:
        path = tmp_path_factory.mktemp("bridges") / "pairs.jsonl"
        rows = (
            {
                "url": f"http://a.example/{i}.jpg",
                "raw_caption": f"Bridge number {i} in Lisbon, {1900 + i % 100}",
                "synthetic_caption": "A bridge over water.",
            }
            for i in range(count)
        )
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture(scope="session")
def captioned_lake(
    spark: "SparkSession", empty_lake: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Function that creates a lake from a file with synthetic captions; its pairs are due for fusion."""
    from capsfusion_etl.lake.create import open_lake
    from capsfusion_etl.lake.location import prepare
    from capsfusion_etl.lake.run import Run
    from capsfusion_etl.lake.saved_settings import remember
    from capsfusion_etl.pipeline import PipelineConfig
    from capsfusion_etl.settings import Settings
    from capsfusion_etl.stages.caption.stage import caption
    from capsfusion_etl.stages.filters.stage import filter_pairs
    from capsfusion_etl.stages.ingest.stage import ingest

    def make(pairs: Path, **filters: object) -> Path:
        lake = Path(shutil.copytree(empty_lake, tmp_path_factory.mktemp("captioned") / "lake"))
        settings: Settings = {"source": {"pairs": str(pairs)}, "captioner": {"name": "column"}}
        settings |= {"fetch": {"enabled": False}, "filters": filters}
        prepare(str(lake))
        remember(str(lake), settings)
        plan, run = PipelineConfig.of(settings), Run(open_lake(spark, str(lake)))
        ingest(run, plan.source)
        filter_pairs(run, plan.filters)
        caption(run, plan.captioner, plan.budget)
        return lake

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Function that mounts a disk of `size` bytes; a later call resizes it. Skips the test if it is not run as root."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: int) -> Path:
        options = f"{'remount,' if folder.is_mount() else ''}size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False)
        return folder if done.returncode == 0 else pytest.skip("mounting a small disk needs root")

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", folder], check=True)  # metrics writers may still have it open


@pytest.fixture
def capsfusion(
    spark: "SparkSession", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Function that runs the command line in this process, on the shared session: exit status, stdout, stderr."""
    import signal

    from capsfusion_etl.cli.main import main

    def call(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["capsfusion", *map(str, arguments)])
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as exit_:
                main()
        finally:
            signal.signal(signal.SIGTERM, before)
        out = capsys.readouterr()
        code = exit_.value.code
        return (code if isinstance(code, int) else 0), out.out, out.err

    return call


@pytest.fixture(scope="session")
def tiny_tokenizer() -> "PreTrainedTokenizerFast":
    """A tokenizer whose tokens are single bytes; `<image>` stands for an image."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<end>", "<image>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", additional_special_tokens=["<image>"]
    )


def _llama(vocabulary: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=None, eos_token_id=0, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_llama(tiny_tokenizer: "PreTrainedTokenizerFast", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights, as a folder."""
    from transformers import LlamaForCausalLM, set_seed

    set_seed(0)
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(_llama(len(tiny_tokenizer))).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    """Function that returns a JPEG of one colour, as bytes."""
    import io

    from PIL import Image

    def make(colour: str = "teal", size: tuple[int, int] = (64, 48)) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", size, colour).save(buffer, "JPEG")
        return buffer.getvalue()

    return make
