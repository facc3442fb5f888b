"""llama.cpp's HTTP server, as the package xllamacpp has it prebuilt. Prints its address and serves until it is ended.

Runs in an environment of its own (benchmarks/serving.txt), which has no acorn.
"""

from __future__ import annotations

import json
import sys
import threading

import xllamacpp


def main() -> None:
    spec = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = spec["file"]
    params.n_parallel = spec["slots"]
    params.n_ctx = spec["slots"] * spec["context"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = spec["threads"]
    params.port = spec["port"]
    params.warmup = True
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
