"""What every model is scored on: the same pictures, references, clozes, texts and decoding."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from capsfusion_etl.errors import InputError

from capsfusion_trainer.evaluation.clozes import Cloze, read_clozes
from capsfusion_trainer.evaluation.references import References, read_references


@dataclass(frozen=True, slots=True)
class Suite:
    """The benchmarks, by name.

    Attributes:
        images: Folder of the pictures.
        references: Sets of reference captions.
        clozes: Sets of clozes.
        texts: Texts without pictures.
        beams: Beam width of captioning.
        max_new_tokens: Longest caption; None: as long as in training.
    """

    images: Path
    references: dict[str, References]
    clozes: dict[str, list[Cloze]]
    texts: dict[str, list[str]]
    beams: int = 5
    max_new_tokens: int | None = None

    def fingerprint(self) -> str:
        """Return 12 hex digits of a hash of all that the scores depend on, but the model; folders do not count."""
        asked = asdict(self) | {"images": "."}
        asked |= {name: dict(sorted(asked[name].items())) for name in ("references", "clozes", "texts")}
        found = hashlib.sha256(json.dumps(asked, default=str).encode())
        for file in self.files():
            found.update(hashlib.sha256((self.images / file).read_bytes()).digest())
        return found.hexdigest()[:12]

    def files(self) -> list[str]:
        """Return the file names of all pictures."""
        asked = {cloze.image for clozes in self.clozes.values() for cloze in clozes}
        return sorted({*self.pictures(), *asked})

    def pictures(self) -> list[str]:
        """Return the file names of the pictures that have references."""
        return sorted({found.files[i] for found in self.references.values() for i in found.captions})


def read_suite(
    images: Path | None, references: Sequence[Path], clozes: Sequence[Path], texts: Sequence[Path], *,
    beams: int = 5, max_new_tokens: int | None = None,
) -> Suite:  # fmt: skip
    """Return the suite of some files; the name of a benchmark is that of its file without the suffix.

    Raises:
        InputError: There is none, a file is unreadable or names no picture, a picture is missing, or two files have the
            same name.
    """
    files = [*references, *clozes, *texts]
    if not files:
        raise InputError(
            "say what to score on: --references, --clozes or --text. Held-out losses of the strategies' own captions "
            "rank nothing: the dullest captions are the easiest to predict"
        )
    names = [file.stem for file in files]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two benchmarks have the name {twice[0]}: rename a file")
    if images is None and (references or clozes):
        raise InputError("--references and --clozes need --images FOLDER")
    found = Suite(
        images or Path(), {file.stem: read_references(file) for file in references},
        {file.stem: read_clozes(file) for file in clozes}, {file.stem: _lines(file) for file in texts},
        beams, max_new_tokens,
    )  # fmt: skip
    _check_pictures(found)
    return found


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the text {path}: {error}") from None
    if not any(lines):
        raise InputError(f"{path} has no text")
    return [line for line in lines if line]


def _check_pictures(suite: Suite) -> None:
    for name, found in suite.references.items():
        nameless = next((i for i in found.captions if i not in found.files), None)
        if nameless is not None:
            raise InputError(f"{name}: the image {nameless} has no file_name")
    missing = [file for file in suite.files() if not (suite.images / file).is_file()]
    if missing:
        raise InputError(f"{len(missing)} pictures are not in {suite.images}, such as {missing[0]}")
