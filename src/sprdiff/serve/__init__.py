"""The codec as a web page and an HTTP API (extra: serve).

    connection ─ Protocol ─ Guard ─ FastAPI ─ Service ─► Pool ─► jobs: Codec on a thread
                 slow headers  headers, ids,    parameters  limits of     places and
                 time out      metrics, 500                 the body      threads

`settings` has the limits, `app` the routes, `server` the process around them. ``page/`` is the page: plain
files without a build step or external resources.
"""

from __future__ import annotations
