"""Claims about the page of a night with a challenger."""

import html
import re

from job.summarization.summarize import summarize
from tests.champions import put_adapter
from tests.stand_in import StandInEngine, stand_in
from tests.summarization.conftest import conversation, write_lines


def test_the_page_has_both_sides_in_a_table_and_a_gallery(config, tmp_path):
    for name in ("a", "b"):
        put_adapter(f"{tmp_path}/runs/{name}", tmp_path)
    records = [conversation(f"c{n}", f"late {n}", "sorry") for n in range(6)]
    write_lines(tmp_path / "in.jsonl", records)
    challenger = {"adapter": f"{tmp_path}/runs/b", "shadow": 1.0}
    night = config(adapter=f"{tmp_path}/runs/a", model={}, challenger=challenger)
    theirs = StandInEngine(mark=" by the challenger")
    summarize(night, stand_in(StandInEngine(), challenger=theirs))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    body = re.sub(r"(?s)<(style|script)>.*?</\1>", "", page)
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())
    assert "In shadow: it summarized 100.00% of the conversations, too" in text
    assert "figure adapter challenger Conversations 6 6 Summaries 6 6" in text
    assert text.count(" by the challenger") == 6, "beside each delivered summary"
    assert 'href="#challenger"' in page
