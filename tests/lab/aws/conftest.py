from __future__ import annotations

from collections.abc import Iterator

import pytest
from aws_world import AwsWorld, provisioned


@pytest.fixture
def world() -> Iterator[AwsWorld]:
    with provisioned() as world:
        yield world
