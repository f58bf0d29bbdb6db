"""What a log shows of a step."""

from admin.progress import Lines


def test_a_step_is_told_at_its_quarters_and_once_each(capsys):
    with Lines().step("encode 240p", 100) as step:
        for done in (1, 24, 25, 26, 80, 60, 100, 140):
            step.reach(done)
        step.note("3 segments")
    assert capsys.readouterr().out.splitlines() == [
        "encode 240p ...",
        "encode 240p: 25 %",
        "encode 240p: 75 %",
        "encode 240p: done, 3 segments",
    ]


def test_a_step_of_unknown_length_is_told_at_its_ends(capsys):
    with Lines().step("probe", None) as step:
        step.reach(5)
    assert capsys.readouterr().out.splitlines() == ["probe ...", "probe: done"]
