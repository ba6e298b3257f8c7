"""Which addresses a model may reach: those of the public network, and no others.

A name is resolved once, and the connection goes to the very address that was checked: a name server
that answers differently the second time gains nothing.
"""

import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from calculator.errors import ToolError

Resolve = Callable[[str, int], Iterable[str]]
"""The addresses of a host's name."""
Permit = Callable[[str], bool]
"""Whether an address may be connected to."""

CARRIERS = tuple(
    ip_network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)
"""IPv6 that carries an IPv4 address, which a gateway may deliver to a private network."""


def resolve(host: str, port: int) -> list[str]:
    """Ask the system. Raises OSError."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in entries]


def is_public(text: str) -> bool:
    """Return whether an address belongs to the public network."""
    address: IPv4Address | IPv6Address = ip_address(text.split("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if any(address in network for network in CARRIERS):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def checked_address(host: str, port: int, resolve: Resolve, permit: Permit) -> str:
    """Return the address to connect to. Raises ToolError where one of the name's is not public."""
    try:
        addresses = list(resolve(host, port))
    except (OSError, UnicodeError) as error:
        raise ToolError(f"the name {host} cannot be resolved: {error}") from None
    if not addresses:
        raise ToolError(f"the name {host} has no address")
    for address in addresses:
        if not permit(address):
            raise ToolError(f"{host} has the address {address}, which is not of the public network")
    return addresses[0]
