"""Accepted captions a second of the fusers, with the same weights, rows and judge, on the same CPU.

`script` is the method of the inference script that came with CapsFusion: transformers' generate, batches of 4 in the
order of the rows, 3 beams, the paper's prompt in front of each. The engines run as in a Spark task, each side in a
process of its own; they take turns. `vllm` needs the environment of benchmarks/vllm_cpu.sh, whose Python is --vllm.

    python benchmarks/fusers.py --triplets triplets.parquet --rows 64 [--vllm .venv-vllm/bin/python]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.fuse import fuse_all
from capsfusion_etl.judge import ACCEPTED, judge
from capsfusion_etl.prompt import load_template, render
from capsfusion_etl.weights import ADAPTER, adapter_folder, merged, smollm2

TOKENS = 60


def questions(path: str, count: int) -> list[Question]:
    """Rows of a file in the CapsFusion-120M layout."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["laion_2b", "laion_coco"]).slice(0, count).to_pylist()
    return [Question(f"{i:064x}", row["laion_2b"], row["laion_coco"]) for i, row in enumerate(table)]


def script(rows: list[Question]) -> int:
    """The method of the script, with the adapter in the weights, as the engines have it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = merged(str(smollm2()), None, adapter_folder(ADAPTER))
    tokenizer = AutoTokenizer.from_pretrained(where, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32).eval()
    template, accepted = load_template("compact-v1"), 0
    for start in range(0, len(rows), 4):
        part = rows[start : start + 4]
        prompts = [render(template, q.raw_caption, q.synthetic_caption) for q in part]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=TOKENS, num_beams=3, do_sample=False)
        texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for question, text in zip(part, texts, strict=True):
            line = (text.strip().splitlines() or [""])[0]
            accepted += judge(question.raw_caption, question.synthetic_caption, line).verdict == ACCEPTED
    return accepted


def engine(config: FuserConfig, rows: list[Question]) -> int:
    """An engine as the job runs it: judged, and asked again where that is its default."""
    return sum(s.judgement.verdict == ACCEPTED for s in fuse_all(config, rows))


def vllm_config() -> FuserConfig:
    """vLLM on a CPU with the merged weights (for a GPU none of `engine_args` is needed)."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    arguments: dict[str, Any] = {"enforce_eager": True, "max_model_len": 1024, "block_size": 32, "max_num_seqs": 64}
    where = str(merged(str(smollm2()), None, adapter_folder(ADAPTER)))
    return FuserConfig(
        name="vllm", model=where, prompt="compact-v1", chat=False, dtype="bfloat16", max_new_tokens=TOKENS,
        engine_args=arguments,
    )  # fmt: skip


def worker(side: str, path: str, count: int) -> None:
    """Warm up on 4 rows, then print rows accepted and seconds taken."""
    rows = questions(path, count)
    config = vllm_config() if side == "vllm" else FuserConfig(name="embedded", max_new_tokens=TOKENS)

    def go(part: list[Question]) -> int:
        return script(part) if side == "script" else engine(config, part)

    go(rows[:4])
    started = time.perf_counter()
    accepted = go(rows)
    print(json.dumps({"accepted": accepted, "seconds": time.perf_counter() - started}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplets", required=True)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vllm", help="Python of the environment that has vLLM")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.triplets, options.rows)
        return
    pythons = {"script": sys.executable, "embedded": sys.executable}
    pythons |= {"vllm": options.vllm} if options.vllm else {}
    rates: dict[str, list[float]] = {side: [] for side in pythons}
    shares: dict[str, float] = {}
    for _ in range(options.rounds):
        for side, python in pythons.items():
            command = [python, __file__, "--worker", side, "--triplets", options.triplets, "--rows", str(options.rows)]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(next(line for line in out.splitlines() if line.startswith('{"accepted"')))
            rates[side].append(found["accepted"] / found["seconds"])
            shares[side] = found["accepted"] / options.rows
    for side, mine in rates.items():
        ratios = sorted(m / s for m, s in zip(mine, rates["script"], strict=True))
        spread = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}, {options.rounds} rounds)"
        print(f"{side}: {statistics.median(mine):.2f} accepted/s, {shares[side]:.0%} accepted, of the script {spread}")


if __name__ == "__main__":
    main()
