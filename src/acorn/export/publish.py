"""Uploads a Hugging Face model folder to a repository on the Hub, or on the server that HF_ENDPOINT names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from acorn.checkpoint.model_folder import CARD
from acorn.errors import AcornError, ResourceError, UsageError
from acorn.hub_errors import one_line
from acorn.origin import is_repository


def check_login(repository: str) -> None:
    """Checks the user's token with the Hub before the export begins.

    Raises:
        UsageError: `repository` does not have the form OWNER/NAME, or the user is not logged in.
        ResourceError: the Hub cannot be reached.
    """
    import huggingface_hub

    if not is_repository(repository):
        raise UsageError(f"{repository!r} is not the name of a repository.", where="--push", fix="write OWNER/NAME")
    with _hub_errors(repository):
        if not huggingface_hub.get_token():
            raise UsageError("You are not logged in to the Hugging Face Hub.", where="--push", fix=_LOG_IN)
        huggingface_hub.HfApi().whoami()


def publish(folder: Path, repository: str, *, private: bool = False) -> str:
    """Uploads the files of `folder` in one commit, and creates the repository if it does not exist.

    A folder whose model card contains a path of this machine is not uploaded.

    Args:
        private: a repository that is created is visible to its owner only.

    Returns:
        the address of the repository.

    Raises:
        UsageError: the user's token has no permission, or the model card contains a path of this machine.
        ResourceError: the Hub cannot be reached or refuses the upload.
    """
    import huggingface_hub

    _check_card(folder / CARD)
    with _hub_errors(repository):
        hub = huggingface_hub.HfApi()
        address = hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Exported with acorn", ignore_patterns=[".*"]
        )
    return str(address)


def _check_card(card: Path) -> None:
    """Refuses a card with a path below the user's home or the current folder, as some programs write them.

    Raises:
        UsageError: there is such a path; the message shows the line.
    """
    lines = card.read_text("utf-8", "replace").splitlines() if card.is_file() else []
    private = [str(place) + os.sep for place in (Path.home(), Path.cwd()) if place != Path(place.anchor)]
    for number, line in enumerate(lines, start=1):
        if any(place in line for place in private):
            raise UsageError(
                f"The model card contains a path of this machine: {line.strip()}",
                where=f"{card}, line {number}",
                fix=f"write the export into a folder with --out, correct {card.name} there, and publish that folder: "
                "acorn export DIR --format hf --push OWNER/NAME",
            )


@contextlib.contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except AcornError:
        raise
    except HFValidationError as error:
        raise UsageError(
            f"{repository!r} is not the name of a repository: {error}", where="--push", fix="write OWNER/NAME"
        ) from None
    except OfflineModeIsEnabled:
        raise UsageError(
            "HF_HUB_OFFLINE is set, so nothing can be published.",
            where="--push",
            fix="set HF_HUB_OFFLINE=0 for this command",
        ) from None
    except HfHubHTTPError as error:
        raise _refusal(repository, error.response.status_code, one_line(error)) from error
    except Exception as error:  # the library and its dependencies raise many kinds of errors
        raise ResourceError(
            f"The Hub cannot be reached: {one_line(error)}",
            where=f"--push {repository}",
            fix="check the connection; try again",
        ) from error


def _refusal(repository: str, status: int, said: str) -> AcornError:
    where = f"--push {repository}"
    if status == 401:
        return UsageError("The Hub does not accept your token (401).", where=where, fix=_LOG_IN)
    if status in (403, 404):
        return UsageError(
            f"Your token has no permission to write to {repository} ({status}).",
            where=where,
            fix="name a repository of your own, or use a token with write permission for this one",
        )
    return ResourceError(f"The Hub answered {status}: {said}", where=where, fix="try again later")


_LOG_IN = "run `hf auth login`, or set HF_TOKEN to a token with write permission"
