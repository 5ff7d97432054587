"""Notifiers: where a person hears of what happened. One module a way."""
