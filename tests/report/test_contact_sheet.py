"""Contact sheets: as wide as their images, and wide enough for the title."""

from pathlib import Path

import numpy as np
from PIL import Image

from rvpt.report.contact_sheet import COLUMNS, Tile, draw_sheet


def test_a_sheet_is_as_wide_as_its_images_and_its_title(tmp_path: Path) -> None:
    widths = {}
    for count in (0, 1, 2, 3, COLUMNS, COLUMNS + 1):
        tiles = [Tile(np.full((8, 8, 3), 0.5, np.float32), ["a", "b"])] * count
        draw_sheet(tiles, tmp_path / "sheet.png", f"{count} of 12345 images are flagged")
        with Image.open(tmp_path / "sheet.png") as sheet:
            widths[count] = sheet.width
    assert widths[0] == widths[1] == widths[2] < widths[3] < widths[COLUMNS] == widths[COLUMNS + 1]
