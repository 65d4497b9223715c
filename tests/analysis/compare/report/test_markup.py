from moka_peft.analysis.compare.report.markup import Markup, join, tag


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", 'a < b & "c"', tag("b", "d")) == "<p>a &lt; b &amp; &quot;c&quot;<b>d</b></p>"
    assert join(["<i>", Markup("<i>"), 3, None, False]) == "&lt;i&gt;<i>3"


def test_attributes():
    assert tag("a", href='x"&y', class_="one", data_key=0, hidden=True, title=None, open=False) == (
        '<a href="x&quot;&amp;y" class="one" data-key="0" hidden></a>'
    )
    assert tag("line", x1=1.2345) == '<line x1="1.2"></line>'
