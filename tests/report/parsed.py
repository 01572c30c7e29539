"""A page as a browser sees it, as far as the tests ask: elements, tables, addresses."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "input", "br", "hr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list["Element"] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def all(self, tag: str, **attributes: str) -> list["Element"]:
        """All descendants with this tag and these attributes; one of the classes will do."""
        found = []
        for child in self.children:
            fits = all(
                value in child.attributes.get(name.strip("_"), "").split()
                if name == "class_"
                else child.attributes.get(name) == value
                for name, value in attributes.items()
            )
            if (tag in ("*", child.tag)) and fits:
                found.append(child)
            found += child.all(tag, **attributes)
        return found

    def text(self) -> str:
        return "".join(self.texts + [child.text() for child in self.children]).strip()


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("root", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].texts.append(data)


def parse(html: str) -> Element:
    """The page; a tag that is not closed, or closed in the wrong place, is an error."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert parser.open == [parser.root]
    return parser.root


def table(page: Element, name: str) -> tuple[list[str], dict[str, list[float | str | None]]]:
    """Columns and rows of a table, by what stands in the first column; numbers with all their digits."""
    (found,) = page.all("table", id=f"table-{name}")
    rows = {}
    for row in found.all("tbody")[0].all("tr"):
        first, *others = row.children
        rows[first.text()] = [_value(cell) for cell in others]
    return [heading.text() for heading in found.all("th", scope="col")], rows


def _value(cell: Element) -> float | str | None:
    numbers = cell.all("data")
    if not numbers:
        return cell.text()
    value = numbers[0].attributes["value"]
    return float(value) if value else None
