"""Runs chat templates, which come with files from strangers: Jinja's sandbox with a budget.

All that a template does is paid for before it is done: for each node of its text that is run, and for each character
and item that an operation reads, compares or makes. A unit is what looking at a character takes, and 4 bytes.
So a template ends in bounded time and memory, however it goes about it: loops and macros pay at the start of their
body, expressions where they are made of more than their parts. What could make much out of little (`center`, `batch`,
`round`, `str.format`, numbers of more than 64 bits, ...) and has no use in chat templates is not there at all.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from datetime import datetime
from functools import wraps
from itertools import chain
from typing import Any

from jinja2 import TemplateSyntaxError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer
from markupsafe import escape

from webllm.errors import RequestError

BUDGET = 1 << 25  # units: a second or a few natively, at most 128 MiB of text
PER_INPUT = 64  # more units for each character and item of the messages
MAX_SOURCE = 1 << 18  # characters; the longest that models come with have a tenth
_MAX_NODES = 1 << 14  # of the source's tree: compiling one takes kilobytes
_MAX_NUMBER = 1 << 64
_BODY = 32  # units for starting a body: a macro's call, a round of a loop
_NODE = 16  # units for a node of a body that is run: most of them make an object
_ITEM = 24  # units for an item of a list, or a list: an object and its place
_SPREAD = 16  # times that a text grows at most when it is quoted, escaped or changes its case, with copies on the way
_FIELD = 2000  # characters in a printf field at most: 999 after the point of the largest number, and 999 of width
_SEARCH = 16  # characters that a search compares in a unit's time
# printf fields that take their value by name, their width from elsewhere, or more than 999 characters
_WIDE = re.compile(r"%\(|%[^%a-zA-Z]*(\*|\d{4})")
_MAX_JSON_INDENT = 16


def _names(*words: str) -> frozenset[str]:
    return frozenset(" ".join(words).split())


_FREE = _names("length count first last default d safe attr")  # filters whose work is always the same
# Filters that look at the items of what they get, and not into them.
_SHALLOW = _names("list items reverse map select reject selectattr rejectattr")
_PLAIN = _names("abs float int replace string trim truncate")  # what these make of a text is no longer than they pay
_SPREADING = _names("capitalize e escape lower tojson upper casefold swapcase title")
_LISTING = _names("dictsort groupby indent join max min sort title unique wordcount")  # with an object for each item
_GROWING = _names("join replace indent")  # these make as much as the product of what they get
_FILTERS = (_SHALLOW | _PLAIN | _SPREADING | _LISTING) - _names("casefold swapcase")
_TYPE_TESTS = _names(
    "defined undefined none boolean true false number integer float string mapping iterable sequence callable sameas",
    "filter test escaped",
)
_METHODS: Mapping[type, frozenset[str]] = {
    str: _names(
        "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric",
        "isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition",
        "rsplit rstrip split splitlines startswith strip swapcase title upper",
    ),
    Mapping: _names("copy get items keys values"),
    list: _names("copy count index"),
    tuple: _names("count index"),
    range: _names(),
    type: _names(),
}
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    **{"eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "lteq": operator.le, "gt": operator.gt},
    **{"gteq": operator.ge, "in": lambda a, b: a in b, "notin": lambda a, b: a not in b},
}


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as model makers expect it, on a budget. `start` before each rendering."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self) -> None:
        # Nothing is computed while a template is compiled: there is no budget then.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=self._shown,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
        )
        self._left = 0
        filters = {**self.filters, "tojson": self._to_json, "safe": str, "e": _escaped, "escape": _escaped}
        self.filters = {name: self._paid_filter(name, filters[name]) for name in _FILTERS}
        self.filters |= {name: filters[name] for name in _FREE}
        self.filters |= {"step": self._step, "counted": self._counted, "hashed": self._hashed, "format": self._format}
        self.filters |= {"concatenated": self._concatenated, "compared": self._compared, "sliced": self._sliced}
        self.tests = {n: t if n in _TYPE_TESTS else self._paid_test(t) for n, t in self.tests.items()}
        self.tests |= {"divisibleby": lambda value, by: self._rest(value, by) == 0}
        self.tests |= {"odd": lambda value: self._rest(value, 2) == 1, "even": lambda value: self._rest(value, 2) == 0}
        self.globals = {name: self.globals[name] for name in ("range", "dict", "cycler", "joiner")}
        self.globals |= {"namespace": _Namespace, "raise_exception": _refuse, "strftime_now": _strftime_now}

    def compiled(self, source: str) -> Any:
        """The template of `source`. Raises `TemplateSyntaxError`, also for what Python cannot compile."""
        if len(source) > MAX_SOURCE:
            raise TemplateSyntaxError(f"it has {len(source):,} characters; at most {MAX_SOURCE:,} are read", 1)
        try:
            tree = self.parse(source)
            if sum(1 for _ in tree.find_all(nodes.Node)) > _MAX_NODES:
                raise TemplateSyntaxError(f"it has more than {_MAX_NODES:,} expressions and statements", 1)
            tree = _Metered().visit(tree)
            tree.set_environment(self)
            return self.from_string(tree)
        except TemplateSyntaxError:
            raise
        except Exception as error:  # RecursionError, or Python's own limits on what Jinja makes of it
            raise TemplateSyntaxError(f"{type(error).__name__}: {str(error)[:200]}", 1) from error

    def start(self, variables: Any) -> None:
        """Give the next rendering its budget."""
        self._left = BUDGET + PER_INPUT * weight(variables, BUDGET)

    def pay(self, units: int) -> None:
        """Take from the budget. Raises `SecurityError` when it is used up."""
        self._left -= units
        if self._left < 0:
            raise SecurityError("it works for too long, or makes too much text")

    def pay_for(self, *values: Any) -> int:
        """Pay for all that is in the values, before anybody looks into them; returns how much."""
        units = sum(weight(value, self._left) for value in values)
        self.pay(units)
        return units

    def pay_to_show(self, *values: Any) -> int:
        """Pay for values whose text is made: what is in a list is quoted. Returns how much the values are."""
        units = self.pay_for(*values)
        self.pay(_SPREAD * sum(weight(v, self._left) for v in values if isinstance(v, Collection) and not _is_text(v)))
        return units

    def pay_to_search(self, units: int, values: Iterable[Any]) -> None:
        """Pay for looking for each of these texts at each place of what is as long as `units`."""
        self.pay(units * sum(len(value) for value in values if _is_text(value)) // _SEARCH)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Data has the methods that chat templates use, of those that change nothing and make nothing large."""
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind):
                return attr in methods
        return bool(super().is_safe_attribute(obj, attr, value))

    def wrap_str_format(self, value: Any) -> None:
        """`str.format` is no method here."""
        return None

    def getitem(self, obj: Any, argument: Any) -> Any:
        """obj[argument], where an argument of many parts is paid for: it is hashed."""
        return super().getitem(obj, self._hashed(argument))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls. A macro pays in its body for all but its arguments."""
        __self.pay(_ITEM * (len(args) + len(kwargs)))
        if not isinstance(__obj, Macro):
            __self._pay_for_call(__obj, [*args, *kwargs.values()])
        return super().call(__context, __obj, *args, **kwargs)

    def _pay_for_call(self, function: Any, values: list[Any]) -> None:
        subject, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        known = isinstance(subject, str | list | tuple) or (isinstance(subject, Mapping) and name == "copy")
        units = self.pay_for(subject if known else None, *values)
        if name in _GROWING:
            self.pay(units * _largest(values))
        if isinstance(subject, str):
            self.pay_to_search(units, values)
            self.pay(_SPREAD * units if name in _SPREADING else 0)
            self.pay(_ITEM * _pieces(subject, values) if "split" in name else 0)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Operators, without those whose result would be out of all proportion."""
        self.pay_for(_bounded(left), _bounded(right))
        if operator == "%" and isinstance(left, str):
            if _WIDE.search(left):
                raise SecurityError(f"the format {left[:40]!r} has names, or is too wide")
            self.pay(_FIELD * left.count("%") + _SPREAD * weight(right, self._left))
        if operator in ("*", "**"):
            sized = any(isinstance(side, Sized) for side in (left, right))
            a, b = (len(side) if isinstance(side, Sized) else abs(side) for side in (left, right))
            if sized:
                self.pay(int(min(a * b, _MAX_NUMBER)) * (1 if _is_text(left) or _is_text(right) else _ITEM))
            elif operator == "**" and a > 1 and b > 64:
                raise SecurityError(f"{operator} with a result that is too large")
        return _bounded(super().call_binop(context, operator, left, right))

    @pass_context  # with a context there is nothing to do while compiling
    def _shown(self, context: Any, value: Any) -> Any:
        self.pay_to_show(value)
        return value

    def _step(self, units: int) -> None:
        self.pay(units)

    def _counted(self, items: Any, each: int = _ITEM) -> Any:
        self.pay(each * len(items) if isinstance(items, Sized) else 1)
        return items

    def _sliced(self, items: Any) -> Any:
        return self._counted(items, 1 if _is_text(items) else _ITEM)

    def _hashed(self, key: Any) -> Any:
        if isinstance(key, tuple):
            self.pay_for(key)
        return key

    def _concatenated(self, parts: Sequence[Any]) -> str:
        self.pay_to_show(*parts)
        return "".join(map(str, parts))

    def _compared(self, left: Any, *chained: Any) -> Any:
        """left < right, or left < middle < right, as Python does but for operands that it would not look at."""
        result = None
        for how, right in zip(chained[::2], chained[1::2], strict=True):
            if not (result := self._compared_two(left, how, right)):
                break
            left = right
        return result

    def _compared_two(self, left: Any, how: str, right: Any) -> Any:
        if how in ("in", "notin"):
            units = self.pay_for(left, None if isinstance(right, Mapping) else right)
            self.pay_to_search(units, [left] if _is_text(right) else [])
        elif isinstance(left, str) and isinstance(right, str):
            self.pay(min(len(left), len(right)))
        elif isinstance(left, Collection) and isinstance(right, Collection):
            self.pay_for(left, right)
        return _COMPARE[how](left, right)

    def _format(self, text: Any, *args: Any, **named: Any) -> Any:
        return self.call_binop(None, "%", str(text), named or args)

    def _rest(self, value: Any, by: Any) -> Any:
        return self.call_binop(None, "%", value, by)

    def _paid_filter(self, name: str, apply: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(apply)  # also what Jinja marks it with: whether it wants the context first
        def paid(*args: Any, **kwargs: Any) -> Any:
            values = [value for value in (*args, *kwargs.values()) if not _is_jinja(value)]
            self._pay_for_filter(name, *values)
            result = apply(*args, **kwargs)
            return list(result) if isinstance(result, Iterator) else _bounded(result)

        return paid

    def _pay_for_filter(self, name: str, subject: Any = None, *rest: Any) -> None:
        items = len(subject) if isinstance(subject, Sized) else 1
        if name in _SHALLOW | _LISTING:  # these may get the attribute's path, where each part is looked up in each item
            parts = sum(1 + text.count(".") + text.count(",") for text in rest if _is_text(text))
            self.pay(_ITEM * (items * (1 + parts) + sum(len(v) if isinstance(v, Sized) else 1 for v in rest)))
        if name not in _SHALLOW:
            units = self.pay_to_show(subject, *rest)
            self.pay_to_search(units, rest)
            self.pay(_SPREAD * units if name in _SPREADING | _LISTING else 0)
            self.pay(units * _largest(rest) if name in _GROWING else 0)

    def _paid_test(self, apply: Any) -> Callable[..., Any]:
        @wraps(apply)
        def paid(*args: Any) -> Any:
            values = [value for value in args if not _is_jinja(value)]
            self.pay_to_search(self.pay_to_show(*values), values[:1])
            return apply(*args)

        return paid

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: Sequence[str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Plain JSON; Jinja's own `tojson` escapes HTML."""
        if not (indent is None or (isinstance(indent, int) and indent <= _MAX_JSON_INDENT)):
            raise SecurityError(f"JSON with an indent other than a number up to {_MAX_JSON_INDENT}")
        if separators and not all(_is_text(text) and len(text) <= _MAX_JSON_INDENT for text in separators):
            raise SecurityError(f"JSON with separators other than two texts of up to {_MAX_JSON_INDENT} characters")
        pair = (separators[0], separators[1]) if separators else None
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys)
        chunks = []
        for chunk in encoder.iterencode(value):
            self.pay(len(chunk))
            chunks.append(chunk)
        return "".join(chunks)


def weight(value: Any, most: int) -> int:
    """Characters, items and bytes of numbers in a value and in what it holds, in units; ends soon after `most`."""
    total, pending = 0, [value]
    while pending and total <= most:
        item = pending.pop()
        total += _ITEM
        if isinstance(item, str | range):
            total += len(item) * (1 if _is_text(item) else _ITEM)
        elif isinstance(item, int):
            total += item.bit_length() // 8
        elif isinstance(item, Mapping):
            pending += chain(item.keys(), item.values())
        elif isinstance(item, Collection):
            pending += item
    return total


def _largest(values: Iterable[Any]) -> int:
    """How many times a filter may repeat its text for these arguments."""
    return max((abs(v) if isinstance(v, int) else len(v) if isinstance(v, Sized) else 1 for v in values), default=1)


def _is_jinja(value: Any) -> bool:
    """Contexts and environments, which some filters get first."""
    return type(value).__module__.startswith(("jinja2.", __name__))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _bounded(value: Any) -> Any:
    """The value, unless it is a number that takes long to work with."""
    if isinstance(value, int) and abs(value) > _MAX_NUMBER:
        raise SecurityError("a number of more than 64 bits")
    return value


def _pieces(text: str, separators: Iterable[Any]) -> int:
    """How many pieces a text may be split into; between words and lines there is a space of some kind."""
    given = [separator for separator in separators if separator and _is_text(separator)]
    return 1 + (text.count(given[0]) if given else sum(map(str.isspace, text)))


def _escaped(value: Any) -> str:
    """The text with HTML's signs escaped, as a text like any other: no Markup, which would escape what it meets."""
    return str(escape(str(value)))


def _refuse(message: str) -> None:
    raise RequestError(f"the model's chat template refuses these messages: {message}")


def _strftime_now(form: str) -> str:
    # some systems pad a field to as many characters as it says
    if len(form) > 100 or re.search(r"%[^a-zA-Z%]*\d", form):
        raise SecurityError(f"a time in the form {form[:40]!r}")
    return datetime.now().strftime(form)


class _Namespace(Namespace):
    """`namespace()`, which shows nothing of what it holds: it may hold itself."""

    def __repr__(self) -> str:
        return "<namespace>"


class _Generation(Extension):
    """{% generation %} marks the assistant's words for training; here it only shows them."""

    tags = {"generation"}  # noqa: RUF012 (Jinja declares it so)

    def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


class _Metered(NodeTransformer):
    """Puts the payments into a template, as filters."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self._body(node)
        node.iter = _filter(node.iter, "counted")
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        _bounded(node.value)
        return node

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> nodes.Node:
        raise TemplateSyntaxError("autoescape is not for chat templates", node.lineno)

    def _body(self, node: Any) -> nodes.Node:
        """All of the body is paid for when it begins, nested bodies once, too."""
        cost = _BODY + sum(_NODE + len(getattr(n, "data", "")) for n in node.find_all(nodes.Node))
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_filter(nodes.Const(cost), "step", lineno=node.lineno), lineno=node.lineno))
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = visit_Block = _body

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "concatenated")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        chained = chain.from_iterable((nodes.Const(operand.op), operand.expr) for operand in node.ops)
        return _filter(node.expr, "compared", *chained)

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        node.key = _filter(node.key, "hashed")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, "sliced") if isinstance(node.arg, nodes.Slice) else node


def _filter(value: Any, name: str, *args: nodes.Expr, lineno: int | None = None) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=lineno or value.lineno)
