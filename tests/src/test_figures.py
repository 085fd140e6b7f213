"""What all figures have in common."""

import pytest

from src.figures import html, style
from tests.figures import overflowing, overlapping_ticks


def test_every_kind_of_figure_says_which_run_it_is_of():
    figure, _ = style.create("Errors")
    page = html.page("Attention", ["<p>words</p>"])
    labelled = style.label({"a.png": figure, "b.html": page, "c.txt": "words"}, "lstm on <co2>, seed 0")
    assert labelled["a.png"].get_suptitle() == "Errors\nlstm on <co2>, seed 0"
    assert '</h1><p class="subtitle">lstm on &lt;co2&gt;, seed 0</p><p>words</p>' in labelled["b.html"]
    assert labelled["c.txt"] == "lstm on <co2>, seed 0\n\nwords"
    assert not overflowing(figure)
    assert overflowing(style.create("much too long " * 20)[0])


@pytest.mark.parametrize(("count", "rows", "columns"), [(0, 1, 1), (1, 1, 1), (3, 1, 3), (4, 1, 4), (7, 2, 4), (16, 4, 4)])
def test_images_are_laid_out_by_their_number(count, rows, columns):
    figure, axes = style.create_tiles("Images", count)
    assert len(axes) == count
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == (rows, columns)
    assert figure.get_figheight() == pytest.approx(0.8 + 2.2 * rows)
    assert [text.get_text() for text in figure.axes[0].texts] == (["(none)"] if not count else [])


@pytest.mark.parametrize(
    ("values", "ticks"), [([20.0, 300.0], [20, 50, 100, 200]), ([0.00012, 0.09], [0.001, 0.01]), ([3.0, 10.0], [5, 10])]
)
def test_ticks_of_a_logarithmic_axis_are_round_numbers(values, ticks):
    figure, (axes,) = style.create("Steps")
    axes.plot(values, values)
    style.log_scale(axes, "x", values)
    assert [tick for tick in axes.get_xticks() if values[0] <= tick <= values[1]] == pytest.approx(ticks)
    assert not overlapping_ticks(figure)


def test_the_darkest_word_has_the_largest_weight():
    text = html.highlight(["<b>", "film"], [0.1, 0.4])
    assert 'rgba(31,119,180,0.17)" title="0.100">&lt;b&gt;<' in text  # 0.7 · 0.1 / 0.4
    assert 'rgba(31,119,180,0.70)" title="0.400">film<' in text


def test_words_above_an_alignment_are_written_upwards_and_characters_are_not():
    assert 'class="column"' in html.alignment_table(["long", "words"], ["kurz"], [[0.5, 0.5]])
    characters = html.alignment_table(["a", " "], ["b"], [[0.5, 0.5]])
    assert 'class="column"' not in characters
    assert "␣" in characters
