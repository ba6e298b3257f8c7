"""The line at the front of Claude Code's system prompt that changes with every request.

It says which client asks. If it stayed, no prompt would begin as the one before it did, and each
would be run from its start.
"""

BILLING_HEADER = "x-anthropic-billing-header:"


def without_billing_header(system: str) -> str:
    """Drop the lines of the header at the front of a system prompt.

    >>> without_billing_header("x-anthropic-billing-header: cc_version=2; cch=1a;\\nBe brief.")
    'Be brief.'
    """
    rest = system
    while rest.lstrip().startswith(BILLING_HEADER):
        rest = rest.lstrip().partition("\n")[2].lstrip("\n")
    return rest
