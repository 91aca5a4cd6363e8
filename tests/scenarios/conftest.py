"""The house that stories are played in: one for each file, with a database of its own.

house    a broker at work; what one story did stays for the next, so each makes its own clients
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.house import Addresses, House, open_house
from tests.support.servers import Cluster, fresh_database


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    migrated_cluster: Cluster, redis_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """A broker on a fresh database; at the end of its stories every book agrees."""
    folder = tmp_path_factory.mktemp("house")
    async with fresh_database(migrated_cluster) as database:
        addresses = Addresses(database.daemon_dsn, database.owner_dsn, redis_server)
        async with open_house(addresses, folder) as opened:
            yield opened
            assert await opened.disagreements() == []
