"""The command ``sprdiff`` with the trained parts of preset `sd` as small as in the tests."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sd_helpers import SMALL
from sprdiff.cli import main
from sprdiff.train.sd.options import SDOptions


def small(self: SDOptions, given: Mapping[str, Any]) -> SDOptions:
    """In place of `SDOptions.with_config`."""
    return replace(self, config=replace(SMALL, **{k: v for k, v in given.items() if v is not None}))


if __name__ == "__main__":
    vars(sys.modules[SDOptions.__module__])["SDOptions"].with_config = small
    raise SystemExit(main())
