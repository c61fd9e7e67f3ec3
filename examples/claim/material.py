"""Make the material: pictures, what pages say of them, references and clozes. All of it before any training."""

import json
from pathlib import Path
from random import Random

import grammars
from draw import jpeg
from sizes import Study
from world import Individual, Scene, individuals, scenes, strangers

SEED = "claim"
DISTRACTORS = 9  # names of the same kind


def train_scenes(study: Study) -> list[Scene]:
    """Return the scenes of the pairs that all strategies train on."""
    return list(scenes(individuals(), study.pairs, f"{SEED} train"))


def write_pictures(found: list[Scene], folder: Path) -> list[Path]:
    """Write pictures that are not there yet; return their paths in the order of the scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06d}.jpg" for number in range(len(found))]
    for scene, path in zip(found, paths, strict=True):
        if not path.is_file():
            part = path.with_suffix(".part")
            part.write_bytes(jpeg(scene))
            part.replace(path)
    return paths


def write_test(study: Study, folder: Path) -> list[Path]:
    """Write the test: pictures drawn as those of the training are, two sets of references, clozes, and a text.

    Returns:
        naming.json, generic.json, names.jsonl and prose.txt.
    """
    who = individuals()
    found = list(scenes(who, study.test, f"{SEED} test"))
    pictures = write_pictures(found, folder / "pictures")
    chance = Random(f"{SEED} references")
    images = [{"id": n, "file_name": path.name} for n, path in enumerate(pictures)]
    files = []
    for name, say in (("naming", grammars.naming), ("generic", grammars.generic)):
        said = [{"image_id": n, "caption": text} for n, scene in enumerate(found) for text in say(scene, chance)]
        files.append(folder / f"{name}.json")
        files[-1].write_text(json.dumps({"images": images, "annotations": said}))
    clozes = [_cloze(scene, path, who, chance) for scene, path in zip(found, pictures, strict=True)]
    files.append(folder / "names.jsonl")
    files[-1].write_text("".join(json.dumps(cloze) + "\n" for cloze in clozes))
    prose = scenes(who, study.test, f"{SEED} prose")
    files.append(folder / "prose.txt")
    files[-1].write_text("".join(grammars.naming(scene, chance)[0] + "\n" for scene in prose))
    return files


def _cloze(scene: Scene, path: Path, who: list[Individual], chance: Random) -> dict[str, object]:
    """Return a cloze whose distractors are names of the same kind: the shape alone does not tell the answer.

    They are drawn as often as they are pictured, so that the most frequent name is no good guess.
    """
    others = {
        other.name: 1 / n for n, other in enumerate(who, 1) if other.kind == scene.who.kind and other != scene.who
    }
    wrong: list[str] = []
    while len(wrong) < DISTRACTORS:
        wrong += chance.choices([*others], others.values())
        del others[wrong[-1]]
    return {"image": path.name, "prompt": "A picture of", "answers": [scene.who.name], "distractors": wrong}


def captioner_scenes(study: Study) -> list[Scene]:
    """Return the scenes that the captioner learns from: other individuals, no names, and some kinds left out."""
    return list(scenes(strangers(), study.others, f"{SEED} captioner", zipf=False))
