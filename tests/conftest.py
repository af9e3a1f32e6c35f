"""What holds in every test: a document that a command prints within the test's process is of its type."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hyperpd.cli import output


@pytest.fixture(autouse=True, scope="session")
def documents_are_held() -> Iterator[None]:
    def document(value: object) -> None:
        from tests.documents import holding  # needs packages that not every test has

        holding(printed)(value)

    printed = output.document
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "document", document)
        yield
