"""Where somebody's class is written, as an error says it."""

from pathlib import Path
from typing import Any

from xbp.layers import Layer
from xbp.sources import place_of, places_of


def test_the_line_is_that_of_the_first_method() -> None:
    class Mine(Layer):
        def forward(self, x: Any) -> Any:
            return x

        def backward(self, dout: Any) -> Any:
            return dout

    line = Mine.forward.__wrapped__.__code__.co_firstlineno  # type: ignore[attr-defined]
    assert place_of(Mine) == f"{__file__}, line {line}: Mine"
    assert places_of([Mine(), Mine(), 1]) == f"{__file__}, line {line}: Mine; int"


def test_of_two_classes_of_one_name_each_has_its_own_line() -> None:
    def make(number: int) -> type:
        if number == 1:

            class Twin(Layer):
                def forward(self, x: Any) -> Any:
                    return x

        else:

            class Twin(Layer):  # type: ignore[no-redef]
                def forward(self, x: Any) -> Any:
                    return 2 * x

        return Twin

    assert place_of(make(1)) != place_of(make(2))


def test_a_class_without_a_method_and_one_without_a_file_have_a_name() -> None:
    class Bare(Layer):
        pass

    assert place_of(Bare).endswith(": Bare")
    assert place_of(Bare).startswith(__file__)
    assert place_of(type("Made", (Layer,), {})) == "Made"
    assert place_of(int) == "int"


def test_a_file_that_has_changed_is_no_error(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "their_module.py"
    path.write_text("class Theirs:\n    number = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = __import__("their_module").Theirs
    assert place_of(kind) == f"{path}, line 1: Theirs"
    path.write_text("class Theirs(:\n")
    __import__("linecache").clearcache()
    assert place_of(kind).endswith("Theirs")
