from utils.report.rendering import Notes, Table, cross_table, escape_latex, latex, markdown

TABLE = Table(("method", "score"), (("a|b", "1.0 ± 2.0¹²"), ("c_d", "3")), frozenset({(1, 1)}))


def test_markdown_has_columns_of_one_width():
    assert markdown(TABLE).splitlines() == [
        "| method | score       |",
        "| ------ | ----------- |",
        r"| a\|b   | 1.0 ± 2.0¹² |",
        "| c_d    | 3           |",
    ]


def test_notes_have_one_number_each_in_order_of_their_first_mark():
    notes = Notes()
    assert notes.mark([]) == ""
    assert notes.mark(["first"]) == "¹"
    assert notes.mark(["second", "first"]) == "¹,²"
    assert notes.mark([f"note {i}" for i in range(8)]) == "³,⁴,⁵,⁶,⁷,⁸,⁹,¹⁰"
    assert notes.lines()[:2] == ["¹ first", "² second"]


def test_latex_escapes_every_special_character():
    assert escape_latex("50 % of a_b & c#d $x$ {y} ~ ^ \\ 1¹² ± 2 -> 3") == (
        r"50 \% of a\_b \& c\#d \$x\$ \{y\} \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{} 1\textsuperscript{12} $\pm$ 2 $\to$ 3"
    )


def test_latex_is_a_booktabs_tabular_with_the_best_in_bold_and_notes_below():
    lines = latex(TABLE, ["¹² unlike 5 %"]).splitlines()
    assert lines == [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"method & score \\",
        r"\midrule",
        r"a\textbar{}b & 1.0 $\pm$ 2.0\textsuperscript{12} \\",
        r"c\_d & \textbf{3} \\",
        r"\bottomrule",
        r"\end{tabular}",
        "",
        r"{\footnotesize",
        r"\noindent \textsuperscript{12} unlike 5 \%\par",
        "}",
    ]


def test_latex_draws_a_line_above_the_rule_row():
    table = Table(TABLE.header, TABLE.rows, rule=1)
    lines = latex(table).splitlines()
    assert lines[lines.index(r"c\_d & 3 \\") - 1] == r"\midrule"
    assert lines.count(r"\midrule") == 2


def test_a_table_is_turned_where_columns_are_too_many():
    def cross(columns):
        return cross_table(
            ("x", "y"),
            columns,
            lambda row, column: row + column,
            {("y", "a"): "!"},
            "task",
            str.upper,
        )

    wide = cross(tuple("abcdef"))
    assert wide.header == ("task", "a", "a, published", "b", "c", "d", "e", "f")
    assert wide.rows[1] == ("Y", "ya", "!", "yb", "yc", "yd", "ye", "yf")
    turned = cross(tuple("abcdefg"))
    assert turned.header == ("method", "X", "Y", "Y, published")
    assert turned.rows[0] == ("a", "xa", "ya", "!")
    assert turned.rows[1] == ("b", "xb", "yb", "")
