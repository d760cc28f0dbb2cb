"""Why a delivery cannot leave."""


class CannotShip(Exception):
    """This delivery cannot leave on its lane, or has none. `reason_code` says why and holds no value of it."""

    def __init__(self, reason_code: str) -> None:
        super().__init__(reason_code)
        self.reason_code = reason_code
