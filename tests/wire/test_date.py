"""The Date of the proxy's own answers."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import get_field


async def test_own_answers_carry_the_date_in_the_form_of_http() -> None:
    async with InnerWorker(["http://127.0.0.1:9"]) as worker, await worker.open() as client:
        _, head, _ = await client.ask(b"GET /flows HTTP/1.1\r\nHost: test\r\n\r\n")
        text = get_field(head, "Date")
        assert text is not None
        moment = parsedate_to_datetime(text).timestamp()
        assert abs(moment - time.time()) < 2
        assert text == time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(moment))
