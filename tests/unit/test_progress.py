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


def test_show_progress__line_in_a_terminal(capsys):
    with progress.show_progress(every=0):
        progress.report(1, 2, "windows")
        progress.report(3, None, "tilts")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "\rwindows 1 of 2\rtilts 3\rtilts 3\n"


def test_show_progress__draws_seldom_and_at_the_end(capsys):
    with progress.show_progress(every=3600):
        for done in range(100):
            progress.report(done + 1, 100, "tilts")
    assert capsys.readouterr().err == "\rtilts 1 of 100\rtilts 100 of 100\n"
    with progress.show_progress():
        pass
    assert capsys.readouterr() == ("", "")


def test_show_progress__bars_in_a_notebook(monkeypatch):
    import IPython
    import IPython.display

    class Handle:
        def update(self, page):
            pages.append(page.data)

    def display(page, display_id):
        pages.append(page.data)
        return Handle()

    pages = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: type("Shell", (), {"kernel": None})())
    monkeypatch.setattr(IPython.display, "display", display)
    with progress.show_progress(every=0):
        progress.report(1, 2, "<windows>")
        progress.report(3, None, "tilts")
    assert len(pages) == 3
    assert '<progress value="1" max="2" aria-label="&lt;windows&gt;"></progress> &lt;windows&gt; 1 of 2' in pages[-1]
    assert '<progress aria-label="tilts"></progress> tilts 3' in pages[-1]
