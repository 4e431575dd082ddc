"""The printed grants are enough for the whole product, and let nobody change the trail."""

# ruff: noqa: S608 # SQL of constants is what this module is about

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from lifecycle import DatabaseUnavailable, InvalidArgument, database, grants, schema, views
from tests import support
from tests.conftest import FAST, _execute
from tests.support import ACTOR
from tests.test_cli import assert_error, invoke

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox

ROLES = {"owner": 'the "owner"', "application": "app's", "analyst": "Analyst; --"}
NAMES = [view.name for view in views.ALL]
"""Names that only careful quoting survives."""
