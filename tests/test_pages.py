"""The pages that the proxy shows a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from haproxy_py.counters import GATE_RULES
from haproxy_py.pages import DENIALS, ERROR_PAGE, GATE_PAGES, escape, render_error_page, render_gate_page
from haproxy_py.reasons import REASONS

PAGES = {
    **{rule: render_gate_page(rule, "my-instance", "0f3a") for rule in DENIALS},
    "error": render_error_page(503, "no_replica", REASONS["no_replica"].message, "0f3a"),
}

VOID = {"meta", "br", "hr"}


class Reader(HTMLParser):
    """Collects the elements and the text, and checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: bytes) -> Reader:
    reader = Reader()
    reader.feed(page.decode())
    reader.close()
    assert not reader.open
    return reader


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_and_has_one_heading_and_a_language(name: str) -> None:
    reader = read(PAGES[name])
    assert reader.seen.count("h1") == reader.seen.count("main") == reader.seen.count("title") == 1
    assert b'<html lang="en">' in PAGES[name]


@pytest.mark.parametrize("name", PAGES)
def test_page_needs_nothing_else(name: str) -> None:
    assert not re.search(rb"(src|href|url|import|script|https?:)", PAGES[name])


@pytest.mark.parametrize("name", PAGES)
def test_page_is_small(name: str) -> None:
    assert len(PAGES[name]) < 6 * 1024


@pytest.mark.parametrize("name", PAGES)
def test_no_placeholder_is_left(name: str) -> None:
    assert b"{{" not in PAGES[name]


@pytest.mark.parametrize("rule", DENIALS)
def test_gate_page_names_the_instance_the_request_and_the_rule(rule: str) -> None:
    text = read(PAGES[rule]).text
    for word in ("my-instance", "0f3a", "gate_denied", "High Availability", rule, DENIALS[rule].why):
        assert word in text


def test_every_rule_of_the_gate_has_a_page() -> None:
    assert set(GATE_RULES) <= set(DENIALS)


def test_only_who_wanted_to_edit_is_told_about_editing() -> None:
    about = {rule for rule in DENIALS if "To change the flows" in read(PAGES[rule]).text}
    assert about == {"editor_page", "admin_route", "admin_root"}
    assert "editor" not in read(PAGES["deny_list"]).text


@pytest.mark.parametrize("rule", ["editor_page", "admin_route", "admin_root", "dashboard_admin"])
def test_a_flow_that_collides_with_the_admin_side_is_told_how_to_open_it(rule: str) -> None:
    assert "gate.allow" in read(PAGES[rule]).text
    assert "gate.allow" in DENIALS[rule].hint


def test_error_page_names_reason_message_and_request() -> None:
    text = read(PAGES["error"]).text
    for word in ("503", "no_replica", REASONS["no_replica"].message, "0f3a"):
        assert word in text


@pytest.mark.parametrize("value", ['<script>alert("1")</script>', "a&b", "'\"><img>", "{{request_id}}"])
def test_values_cannot_become_markup_or_placeholders(value: str) -> None:
    for page in (
        render_gate_page("admin_route", value, "id"),
        render_gate_page("admin_route", "name", value),
        render_error_page(500, "internal", value, "id"),
    ):
        reader = read(page)
        assert value in reader.text
        assert {"script", "img"}.isdisjoint(reader.seen)


def test_escaped_value_holds_no_placeholder() -> None:
    assert b"{{" not in escape("{{instance}}")


def test_pages_hold_the_placeholders_that_the_worker_fills() -> None:
    for page in GATE_PAGES.values():
        assert {match for match in re.findall(rb"{{\w+}}", page)} == {b"{{instance}}", b"{{request_id}}"}
    assert {match for match in re.findall(rb"{{\w+}}", ERROR_PAGE)} == {
        b"{{status}}", b"{{reason}}", b"{{message}}", b"{{request_id}}",
    }  # fmt: skip
