"""`acorn serve`: an OpenAI-compatible server of a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from acorn.cli.arguments import path_from
from acorn.cli.sampling_options import Checkpoint, Device, Precision


def serve(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", parser=path_from("RUN"), help="A run, checkpoint or model folder, or hf:OWNER/NAME."
        ),
    ],
    host: Annotated[
        str, typer.Option(metavar="H", help="The address to listen at; other than this machine's own: needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="The port; 0: any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="F", parser=path_from("--api-key-file"), help="A file with the key that clients need."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="H", help="A further name that the server is called by (repeat for several)."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the server's page in a browser.")] = False,
    slots: Annotated[int, typer.Option(metavar="N", min=1, max=256, help="Texts that are continued together.")] = 16,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            parser=path_from("--compare"),
            help="Another run or model that the page can compare with (repeat for several).",
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Serve a model over HTTP, for OpenAI's clients and a browser.

    It serves this machine alone, unless --host says otherwise. Ctrl-C stops it.
    """
    from acorn.serve.packages import check_packages

    check_packages()
    from acorn.report.terminal import TaskProgress
    from acorn.runtime.choose import runtime_for_inference
    from acorn.serve.server import Server, Settings, log_to_stderr, read_key

    settings = Settings(
        run,
        checkpoint,
        host,
        port,
        None if api_key_file is None else read_key(api_key_file),
        tuple(allow_host or ()),
        slots,
        precision == "int8",
        tuple(compare or ()),
    )
    log_to_stderr()
    server = Server(settings, runtime_for_inference(device, precision), say=_say, progress=TaskProgress())
    if open_page:
        import webbrowser

        webbrowser.open(server.url)
    server.serve_until_stopped()


def _say(text: str) -> None:
    print(f"acorn: {text}", file=sys.stderr, flush=True)
