"""The local stand-in of Zocdoc, for trying things out without an account."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lifecycle import errors

if TYPE_CHECKING:
    from lifecycle.sandbox import Server

_ANNOUNCEMENT = """\
# A stand-in of Zocdoc's developer API, for this machine only. Ctrl-C ends it, and with it what it knows.
# base URL       {base_url}
# token URL      {token_url}
# client id      {client_id}
# client secret  {client_secret}
export LIFECYCLE_ZOCDOC_BASE_URL={base_url}
export LIFECYCLE_ZOCDOC_TOKEN_URL={token_url}
export LIFECYCLE_ZOCDOC_CLIENT_ID={client_id}
export LIFECYCLE_ZOCDOC_CLIENT_SECRET={client_secret}
# Then, in that shell, with an appointment of Zocdoc's guide (it is in pending_booking):
#   lifecycle db upgrade
#   lifecycle track d04b049a-41b1-4aba-9268-d8973cf72cdd
#   lifecycle confirm d04b049a-41b1-4aba-9268-d8973cf72cdd"""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, show_envvar=True, help="A loopback address.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="a free one",
    show_envvar=True,
    help="The port to listen on.",
)
def sandbox(*, host: str, port: int) -> None:
    """Serve a local stand-in of Zocdoc's API until Ctrl-C, and print the settings to reach it."""
    from lifecycle.sandbox import Sandbox, serve_forever  # noqa: PLC0415 # only this command needs it

    try:
        serve_forever(Sandbox(), host, port, announce=_announce)
    except ValueError as error:
        raise errors.InvalidArgument(argument="--host", problem=str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host} port {port}: {error.strerror}") from None


def _announce(server: Server) -> None:
    from lifecycle.sandbox import CLIENTS  # noqa: PLC0415 # the same

    (client_id, client_secret), *_ = CLIENTS.items()
    text = _ANNOUNCEMENT.format(
        base_url=server.base_url, token_url=server.token_url, client_id=client_id, client_secret=client_secret
    )
    click.echo(text)
