"""Tables as text: alignment, and how a table that is too wide is made to fit."""

from src import tables


def test_words_are_aligned_left_and_numbers_right():
    rows = [["lstm", "1.0000*", "0.2000 "], ["naive", "12.0000 ", "0.5000*"]]
    assert tables.text(["on the test set", "mae ", "skill "], rows).splitlines() == [
        "on the test set      mae    skill",
        "lstm              1.0000*  0.2000",
        "naive            12.0000   0.5000*",
    ]


def test_markdown_tables_have_aligned_columns():
    assert tables.markdown(["recipe", "n"], [["cnn", "1"], ["rnn", "20"]]).splitlines() == [
        "| recipe   |   n |",
        "|:---------|----:|",
        "| cnn      |   1 |",
        "| rnn      |  20 |",
    ]


def test_long_words_are_wrapped_within_120_columns():
    lines = tables.text(["seed", "val_loss", ""], [["0", "0.5", ""], ["1", "–", "no memory " * 20]], left=[0, 2]).splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[0] == "seed  val_loss"
    assert " ".join(" ".join(lines[2:]).split()) == " ".join(["1 –", *["no memory"] * 20])


def test_headings_are_wrapped_where_numbers_alone_are_too_wide():
    headings = ["recipe", *(f"test/standardized_{index}" for index in range(6))]
    lines = tables.text(headings, [["cnn", *["0.1234"] * 6]]).splitlines()
    assert max(map(len, lines)) <= 120
    assert [line.split() for line in lines] == [
        ["test/"] * 6,
        ["standardized_"] * 6,
        ["recipe", *map(str, range(6))],
        ["cnn", *["0.1234"] * 6],
    ]
