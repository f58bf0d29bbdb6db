"""What a replica writes beside its registry: the view of the fleet, and its decisions."""

import json
from types import SimpleNamespace

import msgspec
import pytest

from steering.decisions import Decision, Fallback, Logged, Way, logged
from steering.fleet import MemberState, content_of
from steering.journal import FileJournal
from steering.ranking import Candidate, Question, Rules, rank
from steering.replay import BadLine, Report, replay
from steering.snapshot import recall, save
from steering.standing import Standing
from steering.topology.distance import Proximity

STATE = MemberState(
    appliance="a1", standing=Standing.SERVING, since=1.0, utilisation=0.5, capacity_bps=10**10, hit_ratio=0.9
)
RULES = Rules()
WHERE = SimpleNamespace(network="10.0.0.0/8", sites=("s",), asn=64500, country="PT", latitude=None, longitude=None)


def decision(number=1, fallback=Fallback.RANKED):
    rows = [
        Candidate(f"a{n}", f"s{n % 2}", Proximity.PREFIX, 2.0 + n / 7, n / 10, 10.0, 0.9, n / 3, 7919 * n + number)
        for n in range(6)
    ]
    question = Question(content_of(f"film-{number}").mix)
    ranking = rank(question, rows, RULES, 3)
    best = ranking.ranked[: RULES.options]
    return Decision(
        f"r-{number}",
        5.0,
        Way.JSON,
        fallback,
        ranking.reason,
        tuple(SimpleNamespace(id=row.candidate.appliance, url="https://x") for row in best),
        content_of(f"film-{number}"),
        question,
        ranking if fallback is Fallback.RANKED else None,
        WHERE,
        (),
    )


# --- The view ---


async def test_a_view_is_read_as_it_was_saved(tmp_path):
    await save(tmp_path / "view", (STATE,), 77.0)
    view = await recall(tmp_path / "view")
    assert (view.saved_at, view.members) == (77.0, (STATE,))
    assert [path.name for path in tmp_path.iterdir()] == ["view"]


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x93\x01\x02", b"x" * 1000])
async def test_a_view_that_can_not_be_read_is_none(tmp_path, content):
    (tmp_path / "view").write_bytes(content)
    assert await recall(tmp_path / "view") is None


async def test_without_a_view_there_is_none(tmp_path):
    assert await recall(tmp_path / "view") is None


async def test_a_disk_that_can_not_keep_a_view_leaves_the_old_one(tmp_path):
    await save(tmp_path / "view", (STATE,), 1.0)
    (tmp_path / "view.new").mkdir()
    await save(tmp_path / "view", (), 2.0)
    assert (await recall(tmp_path / "view")).saved_at == 1.0


# --- Decisions ---


async def test_lines_are_written_in_order_and_appended(tmp_path):
    path = tmp_path / "log"
    for numbers in ((1, 2), (3,)):
        journal = FileJournal(str(path), 1.0, RULES, 3)
        for number in numbers:
            journal.write(decision(number))
        await journal.flush()
        journal.close()
        assert journal.written == len(numbers)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["r-1", "r-2", "r-3"]


async def test_after_a_rotation_the_next_lines_go_to_a_new_file(tmp_path):
    path = tmp_path / "log"
    journal = FileJournal(str(path), 1.0, RULES, 3)
    journal.write(decision(1))
    await journal.flush()
    path.rename(tmp_path / "log.1")
    journal.rotate()
    journal.write(decision(2))
    await journal.flush()
    journal.close()
    assert json.loads(path.read_text())["id"] == "r-2"


async def test_a_disk_that_can_not_keep_lines_loses_them_and_counts_them(tmp_path):
    journal = FileJournal(str(tmp_path / "no-folder" / "log"), 1.0, RULES, 3)
    journal.write(decision())
    await journal.flush()
    assert (journal.written, journal.lost) == (0, 1)


def test_lines_that_wait_are_bounded(tmp_path):
    journal = FileJournal(str(tmp_path / "log"), 1.0, RULES, 3, most=3)
    for number in range(5):
        journal.write(decision(number))
    assert journal.lost == 2


async def test_a_share_of_the_decisions_is_kept(tmp_path):
    journal = FileJournal(str(tmp_path / "log"), 0.25, RULES, 3)
    one = decision()
    for _ in range(1000):
        journal.write(one)
    await journal.flush()
    journal.close()
    assert 200 < journal.written < 300
    assert journal.lost == 0


def line(number=1, fallback=Fallback.RANKED):
    return msgspec.json.encode(logged(decision(number, fallback), RULES, 3))


def test_decisions_are_made_again():
    report = Report()
    assert list(replay([line(n) + b"\n" for n in range(50)] + [b"\n"], report)) == []
    assert (report.same, report.differences) == (50, 0)
    assert sum(report.reasons.values()) == 50


def test_a_decision_that_would_be_another_is_named_with_both_answers():
    changed = json.loads(line())
    changed["candidates"][0][4] = 0.89
    changed["candidates"][0][3] = 500.0
    found = list(replay([json.dumps(changed).encode()], Report()))
    assert [(one.line, one.id) for one in found] == [(1, "r-1")]
    assert "was" in found[0].what
    assert "is" in found[0].what


def test_what_was_not_ranked_is_counted_apart():
    report = Report()
    assert list(replay([line(1, Fallback.REGION)], report)) == []
    assert (report.same, report.not_ranked) == (0, 1)


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"id": 1}', b"\xff\xfe", b" " * 2_000_000 + b"{"])
def test_a_line_that_is_none_is_named(text):
    with pytest.raises(BadLine, match="line 2"):
        list(replay([line(), text], Report()))


def test_a_logged_line_names_no_client():
    assert "client" not in {field.name for field in msgspec.structs.fields(Logged)}
