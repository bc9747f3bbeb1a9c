"""Signing in and out: with a token or as a client, and nothing is kept."""

from __future__ import annotations

import re

from clients.web.tests.conftest import GOLDEN, Visit
from playwright.sync_api import Request, expect


def kept(visit: Visit) -> object:
    return visit.page.evaluate(
        """async () => [localStorage.length, sessionStorage.length, document.cookie,
          (await indexedDB.databases()).length, (await caches?.keys() ?? []).length, location.href]"""
    )


def credentials(visit: Visit) -> dict[str, str]:
    made = visit.stack.camserve("client", "create", "--tenant", visit.tenant).stdout
    return dict(line.split("=", 1) for line in made.split())


def sign_in_as_client(visit: Visit, made: dict[str, str]) -> None:
    visit.page.get_by_label("Client id").fill(made["client_id"])
    visit.page.get_by_label("Client secret").fill(made["client_secret"])
    visit.page.get_by_role("button", name="Sign in as the client").click()


def test_a_token_stays_in_memory_only(signed_in: Visit) -> None:
    assert kept(signed_in) == [0, 0, "", 0, 0, signed_in.stack.edge_url + "/"]
    assert [field.input_value() for field in signed_in.page.locator("#sign-in input").all()] == ["", "", ""]
    signed_in.page.reload()
    expect(signed_in.page.get_by_text("Not signed in")).to_be_visible()
    expect(signed_in.work).to_be_hidden()


def test_times_are_those_of_a_clock_and_a_zone(signed_in: Visit) -> None:
    expect(signed_in.page.locator("#session-state")).to_have_text(re.compile(r"until (\d+ \w+ \d+, )?\d\d:\d\d$"))
    expect(signed_in.page.locator("#limits")).to_contain_text(re.compile(r"anew at \d\d:\d\d\s(UTC|GMT|[A-Z]+)"))


def test_the_focus_after_signing_in_is_not_drawn_around_the_heading(visit: Visit) -> None:
    visit.page.get_by_label("Token", exact=True).fill(visit.token())
    visit.page.keyboard.press("Enter")
    heading = visit.page.get_by_role("heading", name="One image")
    expect(heading).to_be_focused()
    expect(heading).to_have_css("outline-style", "none")


def test_a_token_may_be_a_copied_header(visit: Visit) -> None:
    visit.page.get_by_label("Token", exact=True).fill(f"Bearer {visit.token()}")
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_text("Signed in as")).to_be_visible()


def test_a_token_goes_in_no_address(signed_in: Visit) -> None:
    signed_in.choose()
    signed_in.answered()
    assert not [url for url in signed_in.requests if "ey" + "J" in url]


def test_signing_out_leaves_nothing_on_the_page(signed_in: Visit) -> None:
    signed_in.choose()
    signed_in.answered()
    signed_in.page.get_by_role("button", name="Sign out").click()
    expect(signed_in.page.get_by_text("Not signed in")).to_be_visible()
    expect(signed_in.page.get_by_label("Token", exact=True)).to_be_focused()
    left = signed_in.page.locator("body").text_content() or ""
    assert not [word for word in ("star.png", signed_in.tenant) if word in left]
    assert signed_in.pixels() == [0, 0, 0, 0]
    before = len(signed_in.requests)
    signed_in.sign_in()
    assert not [url for url in signed_in.requests[before:] if url.endswith("/v1/infer")]


def test_a_wrong_token_is_told_of(visit: Visit) -> None:
    visit.page.get_by_label("Token", exact=True).fill("not a token")
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_role("alert")).to_contain_text("auth.invalid_token")
    expect(visit.work).to_be_hidden()
    visit.sign_in()
    expect(visit.page.get_by_role("alert")).to_have_count(0)


def test_client_credentials_sign_in(visit: Visit) -> None:
    sign_in_as_client(visit, credentials(visit))
    expect(visit.page.get_by_text(f"Signed in as {visit.tenant}")).to_be_visible()
    assert kept(visit) == [0, 0, "", 0, 0, visit.stack.edge_url + "/"]
    visit.choose()
    visit.answered()


def test_a_wrong_secret_is_told_of(visit: Visit) -> None:
    sign_in_as_client(visit, credentials(visit) | {"client_secret": "guessed"})
    expect(visit.page.get_by_role("alert")).to_be_visible()
    expect(visit.work).to_be_hidden()


def test_a_client_gets_a_new_token_before_its_own_expires(visit: Visit) -> None:
    visit.page.clock.install()
    sign_in_as_client(visit, credentials(visit))
    expect(visit.page.get_by_text(f"Signed in as {visit.tenant}")).to_be_visible()
    visit.page.clock.fast_forward("59:45")
    used: list[str] = []

    def note(request: Request) -> None:
        if request.url.endswith("/v1/infer"):
            used.append(request.headers["authorization"])

    visit.page.on("request", note)
    visit.page.locator("#file").set_input_files(GOLDEN / "heart.png")
    visit.answered("heart, 9")
    assert len([url for url in visit.requests if url.endswith("/oauth2/token")]) == 2
    assert len(used) == 1
