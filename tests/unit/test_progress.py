from __future__ import annotations

from threading import Thread

from aetdist import progress


def test_report__nobody_listens(capsys):
    progress.report(1, 2, "windows")
    assert capsys.readouterr() == ("", "")


def test_listen__innermost_hears_and_outer_again_after():
    outer, inner = [], []
    with progress.listen(lambda *step: outer.append(step)):
        with progress.listen(lambda *step: inner.append(step)):
            progress.report(1, 2, "windows")
        progress.report(2, 2, "windows")
    progress.report(3, 3, "windows")
    assert (outer, inner) == ([(2, 2, "windows")], [(1, 2, "windows")])


def test_listen__only_this_thread():
    seen = []
    with progress.listen(lambda *step: seen.append(step)):
        thread = Thread(target=progress.report, args=(1, 2, "elsewhere"))
        thread.start()
        thread.join()
    assert seen == []


def test_track__counts_items_after_their_work():
    seen = []
    with progress.listen(lambda *step: seen.append(step)):
        for item in progress.track("ab", "tilts"):
            seen.append(item)
    assert seen == [(0, 2, "tilts"), "a", (1, 2, "tilts"), "b", (2, 2, "tilts")]


def test_track__unknown_length():
    seen = []
    with progress.listen(lambda *step: seen.append(step)):
        list(progress.track(iter("a"), "tilts"))
    assert seen == [(0, None, "tilts"), (1, None, "tilts")]
