"""Runs the command ``sprdiff`` with trained parts of preset `sd` that are as small as in the tests."""

from __future__ import annotations

import sprdiff.train.sd.options
from sd_helpers import SMALL
from sprdiff.cli import main

if __name__ == "__main__":
    vars(sprdiff.train.sd.options)["SD"] = SMALL
    raise SystemExit(main())
