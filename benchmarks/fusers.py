"""Compare fusers in accepted captions per second, with the same weights, rows and judge, on the same CPU.

`script` is the method of CapsFusion's inference script: transformers' generate, batches of 4 in row order, 3 beams.
`greedy` is transformers' generate in float32, batches of 64, no beams. The engines run as in a Spark task (`embedded`,
`embedded-copies` with transformers' attention, `vllm`, and `vllm-words`, which decodes from the words of the sources),
in a Spark job (`spark`: `embedded`), or through vLLM's server (`vllm-server`: the fuser `openai`). Each side runs in a
separate process; the sides run in turn, and the ratios are relative to the first side. The sides of vLLM need the
environment of benchmarks/vllm_cpu.sh; pass its Python as --vllm.

    python benchmarks/fusers.py --triplets FILE --sides script embedded vllm vllm-server --vllm .venv-vllm/bin/python
    python benchmarks/fusers.py --triplets FILE --sides greedy spark --rows 192
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.engines.generation.weights import ADAPTER, adapter_folder, merged, smollm2
from capsfusion_etl.judge import ACCEPTED, judge
from capsfusion_etl.prompts import load_template, render
from capsfusion_etl.stages.fuse.worker import fuse_all, fuse_batches

TOKENS = 60
EMBEDDED = FuserConfig(name="embedded", max_new_tokens=TOKENS)
Rows = list[Question]


def questions(path: str, count: int) -> Rows:
    """Return the first `count` rows of a Parquet file in the CapsFusion-120M layout."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["laion_2b", "laion_coco"]).slice(0, count).to_pylist()
    return [Question(f"{i:064x}", row["laion_2b"], row["laion_coco"]) for i, row in enumerate(table)]


def weights() -> Path:
    """Return the folder of the base model with the adapter merged in, which the engines use, too."""
    return merged(str(smollm2()), None, adapter_folder(ADAPTER))


@contextmanager
def generate(batch: int, beams: int) -> Iterator[Callable[[Rows], int]]:
    """Yield a function that fuses with transformers' generate and returns the number of accepted captions."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights(), padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(weights(), dtype=torch.float32).eval()
    template = load_template("compact-v1")

    def go(rows: Rows) -> int:
        accepted = 0
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            prompts = [render(template, q.raw_caption, q.synthetic_caption) for q in part]
            inputs = tokenizer(prompts, return_tensors="pt", padding=True)
            with torch.inference_mode():
                out = model.generate(**inputs, max_new_tokens=TOKENS, num_beams=beams, do_sample=False)
            texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for question, text in zip(part, texts, strict=True):
                line = (text.strip().splitlines() or [""])[0]
                accepted += judge(question.raw_caption, question.synthetic_caption, line).verdict == ACCEPTED
        return accepted

    yield go


@contextmanager
def engine(config: FuserConfig) -> Iterator[Callable[[Rows], int]]:
    """Yield a function that runs an engine as a Spark task does, with its default retries."""
    yield lambda rows: sum(s.judgement.verdict == ACCEPTED for s in fuse_all(config, rows))


@contextmanager
def copied_keys() -> Iterator[Callable[[Rows], int]]:
    """Run `embedded` with transformers' attention, which copies keys and values for each query head."""
    with patch("capsfusion_etl.engines.generation.generate.share_keys"), engine(EMBEDDED) as go:
        yield go


@contextmanager
def spark_job() -> Iterator[Callable[[Rows], int]]:
    """Run the fuser `embedded` in a Spark job with one task per core."""
    from capsfusion_etl.spark.session import get_session
    from capsfusion_etl.tables import FUSED_CAPTIONS

    with tempfile.TemporaryDirectory() as folder:
        spark = get_session(Path(folder) / "spark.log")
        job = partial(fuse_batches, config=EMBEDDED, strategy="fused", params_hash="p", run_id="r", allowance=None)

        def go(rows: Rows) -> int:
            data = [(q.pair_id, q.raw_caption, q.synthetic_caption) for q in rows]
            frame = spark.createDataFrame(data, "pair_id string, raw_caption string, synthetic_caption string")
            out = frame.repartition(os.cpu_count() or 1).mapInArrow(job, FUSED_CAPTIONS.schema())
            return out.where(f"verdict = '{ACCEPTED}'").count()

        yield go
        spark.stop()


@contextmanager
def vllm(**changes: bool) -> Iterator[Callable[[Rows], int]]:
    """Run vLLM in this process; on a GPU `engine_args` is not needed."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    config = FuserConfig(
        name="vllm", model=str(weights()), prompt="compact-v1", chat=False, dtype="float32", max_new_tokens=TOKENS,
        engine_args={"enforce_eager": True, "max_model_len": 1024, "block_size": 32, "max_num_seqs": 64}, **changes,
    )  # fmt: skip
    with engine(config) as go:
        yield go


@contextmanager
def vllm_server() -> Iterator[Callable[[Rows], int]]:
    """Run vLLM's server on this machine behind the fuser `openai`; its chat template passes the prompt unchanged."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w") as log:
        template = Path(folder) / "bare.jinja"
        template.write_text("{{ messages[-1]['content'] }}")
        command = (
            f"{sys.executable} -m vllm.entrypoints.openai.api_server --model {weights()} --served-model-name fuser "
            f"--port {port} --host 127.0.0.1 --dtype float32 --enforce-eager --max-model-len 1024 --block-size 32 "
            f"--max-num-seqs 64 --enable-prefix-caching --chat-template {template}"
        )
        environment = {"VLLM_CPU_KVCACHE_SPACE": "2"} | os.environ
        server = subprocess.Popen(command.split(), stdout=log, stderr=log, env=environment)
        try:
            base_url = f"http://127.0.0.1:{port}/v1"
            wait_for(f"{base_url}/models", server)
            config = replace(EMBEDDED, name="openai", base_url=base_url, model="fuser", prompt="compact-v1")
            with engine(replace(config, structured=False, concurrency=64, timeout_s=300.0)) as go:
                yield go
        finally:
            server.terminate()
            server.wait()


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(1)
        else:
            return
    raise SystemExit("vLLM's server exited before it was ready")


SIDES = {
    "script": lambda: generate(4, 3),
    "greedy": lambda: generate(64, 1),
    "embedded": lambda: engine(EMBEDDED),
    "embedded-copies": copied_keys,
    "spark": spark_job,
    "vllm": vllm,
    "vllm-words": lambda: vllm(only_sources=True),
    "vllm-server": vllm_server,
}


def worker(side: str, rows: Rows) -> None:
    """Warm up on 4 rows, then print the accepted rows and the seconds as JSON."""
    with SIDES[side]() as go:
        go(rows[:4])
        started = time.perf_counter()
        accepted = go(rows)
        print(json.dumps({"accepted": accepted, "seconds": time.perf_counter() - started}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplets", required=True)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["script", "embedded"])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vllm", default=sys.executable, help="Python interpreter of the environment with vLLM")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, questions(options.triplets, options.rows))
        return
    rates: dict[str, list[float]] = {side: [] for side in options.sides}
    shares: dict[str, float] = {}
    for _ in range(options.rounds):
        for side in options.sides:
            python = options.vllm if "vllm" in side else sys.executable
            command = [python, __file__, "--worker", side, "--triplets", options.triplets, "--rows", str(options.rows)]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(next(line for line in out.splitlines() if line.startswith('{"accepted"')))
            rates[side].append(found["accepted"] / found["seconds"])
            shares[side] = found["accepted"] / options.rows
    base = options.sides[0]
    for side, mine in rates.items():
        ratios = sorted(m / s for m, s in zip(mine, rates[base], strict=True))
        spread = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}, {options.rounds} rounds)"
        print(f"{side}: {statistics.median(mine):.2f} accepted/s, {shares[side]:.0%} accepted, vs {base} {spread}")


if __name__ == "__main__":
    main()
