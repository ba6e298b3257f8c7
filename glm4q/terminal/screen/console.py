"""A rich console that never hides the cursor."""

import rich.console


class Console(rich.console.Console):
    """Leaves the cursor visible.

    rich hides it while something is drawn anew, and a process that is killed cannot show it again.
    """

    def show_cursor(self, show: bool = True) -> bool:
        return False
