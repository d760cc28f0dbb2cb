"""The garbage collector of a process that lives long and works in batches."""

import gc
from typing import Final

# A batch of 2,000 records makes some 100,000 objects, nearly all of which go by themselves.
_YOUNG: Final = 50_000


def settle() -> None:
    """To be called once a process has loaded what it needs: that stays, and is not looked through again.

    With Python's own thresholds a reader spends a third of its time on looking through what lives on.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
