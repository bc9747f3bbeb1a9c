"""Section 4: pages of jobs and of results, their filters and their cursors."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, Section
from camserve_conformance.checks.tenancy import finished_job
from camserve_conformance.kit import Kit, image
from camserve_conformance.shapes import JOB, PAGE, expect_shape, moment

section = Section("listings", "4. Messages: pages and cursors")


async def _some_jobs(kit: Kit) -> list[str]:
    """Returns three jobs, the oldest first, which checks share."""

    async def make() -> list[str]:
        created = [(await kit.create_job([{"id": "a", "image": image("star.png")}])).need() for _ in range(3)]
        return [str(each["job_id"]) for each in created]

    found: list[str] = await kit.once("some jobs", make)
    return found


async def _list(kit: Kit, **fields: Any) -> Answer:
    await _some_jobs(kit)
    return await kit.call("ListJobs", fields)


async def _cursor(kit: Kit, **fields: Any) -> str:
    return str((await _list(kit, limit=1, **fields)).need()["page"]["next_cursor"])


@section.check("A listing has jobs and page, of their types.", ways=BOTH)
async def shape(kit: Kit) -> None:
    answer = await _list(kit, limit=2)
    expect_shape(answer, answer.need(), {"jobs": [JOB], "page": PAGE})


@section.check("`page.size` counts the entries.", ways=BOTH)
async def size(kit: Kit) -> None:
    answer = await _list(kit, limit=3)
    answer.expect_equal("size", answer.need()["page"]["size"], len(answer.body["jobs"]))


@section.check("Jobs are listed newest first.", ways=BOTH)
async def newest_first(kit: Kit) -> None:
    answer = await _list(kit, limit=200)
    times = [moment(job["submitted_at"]) for job in answer.need()["jobs"]]
    answer.expect(times == sorted(times, reverse=True), "an older job stands before a newer one")


@section.check("`limit` limits a page.", ways=BOTH)
async def limit(kit: Kit) -> None:
    answer = await _list(kit, limit=2)
    answer.expect_equal("the number of jobs", len(answer.need()["jobs"]), 2)


@section.check("`limit` may be 1 to 200: 0 is refused.", ways=BOTH)
async def limit_least(kit: Kit) -> None:
    answer = await _list(kit, limit=0)
    answer.expect_equal("the status", answer.status, 400, "INVALID_ARGUMENT")


@section.check("`limit` may be 1 to 200: 201 is refused.", ways=BOTH)
async def limit_most(kit: Kit) -> None:
    answer = await _list(kit, limit=201)
    answer.expect_equal("the status", answer.status, 400, "INVALID_ARGUMENT")


@section.check("Pages are exact: no job is missing, none comes twice, while jobs arrive.", ways=BOTH)
async def exact(kit: Kit) -> None:
    wanted = await _some_jobs(kit)
    since = (await kit.call("GetJob", {"job_id": wanted[0]})).need()["submitted_at"]
    answer = await _list(kit, limit=2, created_after=since)
    listed = [job["job_id"] for job in answer.need()["jobs"]]
    (await kit.create_job([{"id": "a", "image": image("star.png")}])).need()
    while cursor := answer.body["page"].get("next_cursor"):
        answer = await _list(kit, limit=2, created_after=since, cursor=cursor)
        listed += [job["job_id"] for job in answer.need()["jobs"]]
    answer.expect(set(wanted) <= set(listed), "a job is on no page")
    answer.expect(len(listed) == len(set(listed)), "a job is on two pages")


@section.check("A cursor is not tied to `limit`.", ways=BOTH)
async def other_limit(kit: Kit) -> None:
    answer = await _list(kit, limit=2, cursor=await _cursor(kit))
    answer.expect(answer.ok, f"a cursor with another limit answered {answer.status} {answer.code}")


@section.check("A cursor that was altered is cursor.invalid.", ways=BOTH)
async def altered_cursor(kit: Kit) -> None:
    cursor = await _cursor(kit)
    middle = len(cursor) // 2
    altered = cursor[:middle] + ("A" if cursor[middle] != "A" else "B") + cursor[middle + 1 :]
    answer = await _list(kit, limit=1, cursor=altered)
    answer.expect_equal("the error's code", answer.code, "cursor.invalid")


@section.check("A cursor used with other filters is cursor.invalid.", ways=BOTH)
async def cursor_of_other_filters(kit: Kit) -> None:
    answer = await _list(kit, limit=1, status="canceled", cursor=await _cursor(kit))
    answer.expect_equal("the error's code", answer.code, "cursor.invalid")


@section.check("`status` leaves only jobs of that state.", ways=BOTH)
async def by_status(kit: Kit) -> None:
    await finished_job(kit)
    answer = await _list(kit, status="succeeded")
    states = {job["status"] for job in answer.need()["jobs"]}
    answer.expect_equal("the states", states, {"succeeded"})


@section.check("`model` leaves only jobs of that model.", ways=BOTH)
async def by_model(kit: Kit) -> None:
    answer = await _list(kit, model=await kit.model())
    models = {job["model"] for job in answer.need()["jobs"]}
    answer.expect_equal("the models", models, {await kit.model()})


@section.check("`model` of which there is no job leaves none.", ways=BOTH)
async def by_other_model(kit: Kit) -> None:
    answer = await _list(kit, model="camserve-conformance")
    answer.expect_equal("the jobs", answer.need()["jobs"], [])


@section.check("`created_after` leaves only jobs since.", ways=BOTH)
async def by_start(kit: Kit) -> None:
    newest = (await _list(kit, limit=1)).need()["jobs"][0]["submitted_at"]
    since = moment(newest) + timedelta(days=1)
    answer = await _list(kit, created_after=since.isoformat().replace("+00:00", "Z"))
    answer.expect_equal("the jobs", answer.need()["jobs"], [])


@section.check("`created_before` leaves only jobs before.", ways=BOTH)
async def by_end(kit: Kit) -> None:
    oldest = await _some_jobs(kit)
    before = (await kit.call("GetJob", {"job_id": oldest[0]})).need()["submitted_at"]
    answer = await _list(kit, created_before=before, limit=200)
    late = [job["job_id"] for job in answer.need()["jobs"] if moment(job["submitted_at"]) >= moment(before)]
    answer.expect(not late, f"{len(late)} jobs are not before {before}")


@section.check("A page that is the last has no `next_cursor`.", ways=BOTH)
async def last_page(kit: Kit) -> None:
    answer = await kit.call("ListJobResults", {"job_id": await finished_job(kit), "limit": 200})
    answer.expect("next_cursor" not in answer.need()["page"], "there is a next_cursor")


@section.check("Results are paged by `limit` and `cursor`.", ways=BOTH)
async def result_pages(kit: Kit) -> None:
    job_id = await finished_job(kit)
    first = await kit.call("ListJobResults", {"job_id": job_id, "limit": 1})
    cursor = first.need()["page"]["next_cursor"]
    second = await kit.call("ListJobResults", {"job_id": job_id, "limit": 1, "cursor": cursor})
    listed = [item["id"] for item in [*first.body["items"], *second.need()["items"]]]
    second.expect_equal("the items of two pages", listed, ["a", "b"])


@section.check("A cursor of another job's results is cursor.invalid.", ways=BOTH)
async def cursor_of_other_results(kit: Kit) -> None:
    first = await kit.call("ListJobResults", {"job_id": await finished_job(kit), "limit": 1})
    cursor = first.need()["page"]["next_cursor"]
    other = (await _some_jobs(kit))[0]
    answer = await kit.call("ListJobResults", {"job_id": other, "limit": 1, "cursor": cursor})
    answer.expect_equal("the error's code", answer.code, "cursor.invalid")
