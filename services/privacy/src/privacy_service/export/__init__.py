"""Exports: what the participants hand over, as a package that is fetched once."""

from privacy_service.export.handlers import (
    begin_export,
    end_export,
    is_complete,
    make_ready,
    on_holdings_exported,
    read_end,
)

__all__ = ["begin_export", "end_export", "is_complete", "make_ready", "on_holdings_exported", "read_end"]
