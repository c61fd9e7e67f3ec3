"""What a file is: its format by content, its size upright, its perceptual hash. Bad files are refused with a reason."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
