# SPDX-License-Identifier: Apache-2.0
"""How much may go wrong before a run gives up."""

import logging

from occany_core.errors import InputError

logger = logging.getLogger(__name__)


class ErrorBudget:
    """Counts what was passed over; one fault too many is an error."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.spent = 0

    def spend(self, what: str, count: int = 1) -> None:
        """Pass over something bad.

        Args:
            what: Names the thing, its place and what is wrong.
            count: How many of them.

        Raises:
            InputError: The budget is used up.
        """
        self.spent += count
        logger.warning("passed over (%d of at most %d): %s", self.spent, self.most, what)
        if self.spent > self.most:
            raise InputError(
                f"{self.spent} faults, more than the {self.most} that a run passes over; the "
                f"last: {what}. Look at the data, or raise most_errors"
            )
