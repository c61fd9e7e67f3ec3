r"""Measure the trainer's MFU on one GPU with a language model of 1.1 billion random weights, frozen or fired (trained).

Runs the loop of `capsfusion train` over a snapshot of JPEGs of 224 pixels: ViT-L/14 (frozen), the bridge, a Llama of
the shape of Llama-3.2-1B with 32,000 tokens, captions of 64 tokens. MFU is the median of metrics.jsonl after the first
ten steps (formula: capsfusion_trainer/training/monitor.py). Prints one JSON line per variant.

    python benchmarks/mfu.py --variant frozen:128 --variant fired:64:compile
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any


def models(folder: Path) -> dict[str, str]:
    """Save the vision tower and the language model; return the settings with their folders."""
    import torch
    from transformers import (
        ByT5Tokenizer,
        CLIPImageProcessor,
        CLIPVisionConfig,
        CLIPVisionModel,
        LlamaConfig,
        LlamaForCausalLM,
    )

    tower = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=224,
        patch_size=14, projection_dim=768,
    )  # fmt: skip
    llama = LlamaConfig(
        vocab_size=32_000, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, tie_word_embeddings=False, max_position_embeddings=2048, bos_token_id=None,
        eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    with torch.device("cuda"):
        CLIPVisionModel(tower).bfloat16().save_pretrained(folder / "vision")
        LlamaForCausalLM(llama).bfloat16().save_pretrained(folder / "llm")
    CLIPImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}).save_pretrained(
        folder / "vision"
    )
    ByT5Tokenizer().save_pretrained(folder / "llm")
    return {"vision_model": str(folder / "vision"), "llm_model": str(folder / "llm")}


def snapshot(folder: Path, rows: int) -> Any:
    """Return a manifest over one Parquet file of JPEGs with captions of more than 64 tokens."""
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from capsfusion_etl.snapshots.manifest import DataFile, GateResult, Manifest
    from PIL import Image

    chance, images = np.random.default_rng(0), []
    for _ in range(200):
        noise = Image.fromarray(chance.integers(0, 255, (28, 28, 3), dtype=np.uint8)).resize((224, 224))
        noise.save(out := io.BytesIO(), "JPEG", quality=90)
        images.append(out.getvalue())
    table = pa.table(
        {
            "pair_id": [f"{i:064x}" for i in range(rows)],
            "image": [images[i % 200] for i in range(rows)],
            "caption": [f"Picture {i} of the fair, {'seen from the old bridge ' * 4}" for i in range(rows)],
        }
    )
    pq.write_table(table, folder / "rows.parquet", row_group_size=128)
    size = (folder / "rows.parquet").stat().st_size
    files = (DataFile("rows.parquet", size, "", rows, "train"),)
    return Manifest("s1", str(folder), "", 0, "fused", rows, (), files, GateResult(True, 1, (), ""))


def one(folder: Path, manifest: Any, named: dict[str, str], variant: str, batch: int, steps: int) -> dict[str, Any]:
    """Train `steps` steps; return a summary of their metrics.jsonl."""
    import torch
    from capsfusion_trainer.config import TrainerConfig
    from capsfusion_trainer.train import train

    mode, micro, *how = variant.split(":")
    config = TrainerConfig(
        recipe=variant, steps=steps, global_batch_size=batch, lanes=64, max_tokens=64, freeze_vision=True,
        freeze_llm=mode == "frozen", bridge_layers=12, bridge_heads=16, micro_batch_size=int(micro), bf16=True,
        compile="compile" in how, shard="shard" in how, workers=12, checkpoint_every=10**6, spike_factor=0.0, **named,
    )  # fmt: skip
    torch.cuda.reset_peak_memory_stats()
    out = folder / variant.replace(":", "-")
    train(config, manifest, out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][10:]
    told = {key: statistics.median(line[key] for line in lines) for key in ("mfu", "pairs_per_second", "step_s")}
    spread = [round(f([line["mfu"] for line in lines]), 4) for f in (min, max)]
    memory = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    return {"variant": variant, **told, "mfu_spread": spread, "data_wait_p50": lines[-1]["data_wait_p50"],
            "loss": [lines[0]["loss"], lines[-1]["loss"]], "peak_gib": memory}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", action="append", required=True, help="frozen|fired:MICRO_BATCH[:compile][:shard]")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        named, manifest = models(folder), snapshot(folder, 4096)
        import torch

        print(torch.cuda.get_device_name(), torch.__version__, flush=True)
        for variant in given.variant:
            print(json.dumps(one(folder, manifest, named, variant, given.batch, given.steps)), flush=True)


if __name__ == "__main__":
    main()
