import pyarrow as pa
import pytest

from raydex.columns import TextLists, column_of

TEXTS = ["Zürich", "", "東京 🙂", "a"]
LISTS = [["ä", "b"], [], ["c"]]


@pytest.mark.parametrize(
    ("values", "kind"), [(TEXTS, pa.string()), (LISTS, pa.list_(pa.string())), ([1, -2, 2**31 - 1], pa.int32())]
)
def test_rows_of_a_column_are_its_values_also_of_a_slice(values, kind):
    values = [tuple(value) if isinstance(value, list) else value for value in values]
    for array in (pa.array(values, kind), pa.array([*values, *values], kind)[1 : 1 + len(values)]):
        column = column_of(array)
        expected = [tuple(value) if isinstance(value, list) else value for value in array.to_pylist()]
        assert [column[row] for row in range(len(array))] == expected
    assert column_of(pa.array([], kind)) is not None


def test_the_last_text_of_a_list_is_found_and_an_empty_list_has_none():
    lists = TextLists(pa.array([["before"], *LISTS])[1:])
    assert [lists.last(row) for row in range(len(LISTS))] == ["b", "", "c"]


def test_a_row_beyond_the_last_one_is_an_error():
    with pytest.raises(IndexError):
        column_of(pa.array(TEXTS))[len(TEXTS)]
