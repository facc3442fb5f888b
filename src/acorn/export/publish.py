"""A Hugging Face model folder becomes a repository of the Hub, or of what HF_ENDPOINT names instead."""

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
    """Asks the Hub whether the user's token is good, before there is anything to publish.

    Raises:
        UsageError: `repository` is not of the form OWNER/NAME, or the user is not logged in.
        ResourceError: the Hub cannot be reached.
    """
    import huggingface_hub

    if not is_repository(repository):
        raise UsageError(f"{repository!r} names no repository.", where="--push", fix="write OWNER/NAME")
    with _hub_errors(repository):
        if not huggingface_hub.get_token():
            raise UsageError("You are not logged in to the Hugging Face Hub.", where="--push", fix=_LOG_IN)
        huggingface_hub.HfApi().whoami()


def publish(folder: Path, repository: str, *, private: bool = False) -> str:
    """Uploads the files of `folder` in one commit; a repository that is not there is made.

    Nothing is sent of a folder whose model card names a place on this machine.

    Args:
        private: of a repository that is made: only its owner sees it.

    Returns:
        the repository's address.

    Raises:
        UsageError: the user's token may not do this, or the model card has a path of this machine.
        ResourceError: the Hub cannot be reached, or refuses.
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
    """Refuses a card with a path below the user's home or the current folder: cards of other programs have some.

    Raises:
        UsageError: it has one; the line is shown.
    """
    lines = card.read_text("utf-8", "replace").splitlines() if card.is_file() else []
    private = [str(place) + os.sep for place in (Path.home(), Path.cwd()) if place != Path(place.anchor)]
    for number, line in enumerate(lines, start=1):
        if any(place in line for place in private):
            raise UsageError(
                f"The model card names a place on this machine: {line.strip()}",
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
            f"{repository!r} names no repository: {error}", where="--push", fix="write OWNER/NAME"
        ) from None
    except OfflineModeIsEnabled:
        raise UsageError(
            "HF_HUB_OFFLINE forbids to publish.", where="--push", fix="set HF_HUB_OFFLINE=0 for this command"
        ) from None
    except HfHubHTTPError as error:
        raise _refusal(repository, error.response.status_code, one_line(error)) from error
    except Exception as error:  # the library and what it stands on raise errors of many families
        raise ResourceError(
            f"The Hub cannot be reached: {one_line(error)}",
            where=f"--push {repository}",
            fix="check the connection; try again",
        ) from error


def _refusal(repository: str, status: int, said: str) -> AcornError:
    where = f"--push {repository}"
    if status == 401:
        return UsageError("The Hub does not know your token (401).", where=where, fix=_LOG_IN)
    if status in (403, 404):
        return UsageError(
            f"Your token may not write to {repository} ({status}).",
            where=where,
            fix="name a repository of your own, or use a token that has the right to write to this one",
        )
    return ResourceError(f"The Hub answered {status}: {said}", where=where, fix="try again later")


_LOG_IN = "run `hf auth login`, or set HF_TOKEN to a token with the right to write"
