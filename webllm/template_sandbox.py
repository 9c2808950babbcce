"""Runs chat templates, which come with files from strangers: Jinja's sandbox with a budget.

All that a template does is paid for before it is done: for each node of its text that is run, and for each character
and item that an operation reads, compares or makes. So a template ends in bounded time and memory, however
it goes about it: loops and macros pay at the start of their body, expressions where they are made of more than their
parts. What could make much out of little (`center`, `batch`, `round`, `str.format`, ...) and has no use in chat
templates is not there at all.
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

from webllm.errors import RequestError

BUDGET = 1 << 25  # units: a second or a few natively, at most 128 MiB of text
PER_INPUT = 64  # more units for each character and item of the messages
MAX_SOURCE = 1 << 18  # characters; the longest that models come with have a tenth
_MAX_NUMBER = 1 << 62
_BODY = 32  # units for starting a body: a macro's call, a round of a loop
_ITEM = 8  # units for an item of a list, or a list: looking at one takes as long as at many characters
_WIDE = re.compile(r"%[^%a-zA-Z]*(\*|\d{4})")  # printf fields of more than 999 characters, or of a width from elsewhere


def _names(*words: str) -> frozenset[str]:
    return frozenset(" ".join(words).split())


_FREE = _names("length count first last default d safe attr")  # filters whose work is always the same
# Filters that look at the items of what they get, and not into them.
_SHALLOW = _names("list items reverse map select reject selectattr rejectattr")
_DEEP = _names(
    "abs capitalize dictsort e escape float groupby int lower max min sort string title trim truncate unique upper",
    "wordcount",
)
_GROWING = _names("join replace indent tojson")  # these make as much as the product of what they get
_TYPE_TESTS = _names(
    "defined undefined none boolean true false number integer float string mapping iterable sequence callable sameas",
    "odd even filter test escaped",
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
        filters = {**self.filters, "tojson": _to_json}
        self.filters = {name: self._paid_filter(name, filters[name]) for name in _SHALLOW | _DEEP | _GROWING}
        self.filters |= {name: filters[name] for name in _FREE}
        self.filters |= {"step": self._step, "counted": self._counted, "hashed": self._hashed, "format": self._format}
        self.filters |= {"concatenated": self._concatenated, "compared": self._compared}
        self.tests = {n: t if n in _TYPE_TESTS else self._paid_test(t) for n, t in self.tests.items()}
        self.globals = {name: self.globals[name] for name in ("range", "dict", "cycler", "joiner")}
        self.globals |= {"namespace": _Namespace, "raise_exception": _refuse, "strftime_now": _strftime_now}

    def compiled(self, source: str) -> Any:
        """The template of `source`. Raises `TemplateSyntaxError`, also for what Python cannot compile."""
        if len(source) > MAX_SOURCE:
            raise TemplateSyntaxError(f"it has {len(source):,} characters; at most {MAX_SOURCE:,} are read", 1)
        try:
            tree = _Metered().visit(self.parse(source))
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
        """Call what a template calls. A macro pays in its body."""
        if not isinstance(__obj, Macro):
            subject = getattr(__obj, "__self__", None)
            values = [subject if isinstance(subject, str | list | tuple) else None, *args, *kwargs.values()]
            units = __self.pay_for(*values)
            if getattr(__obj, "__name__", "") in _GROWING:
                __self.pay(units * _largest(args))
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Operators, without those whose result would be out of all proportion."""
        self.pay_for(left, right)
        if operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise SecurityError(f"the format {left[:40]!r} is too wide")
        if operator in ("*", "**"):
            sized = any(isinstance(side, Sized) for side in (left, right))
            a, b = (len(side) if isinstance(side, Sized) else abs(side) for side in (left, right))
            if sized:
                self.pay(int(min(a * b, _MAX_NUMBER)))
            elif (a > 1 and b > 64) if operator == "**" else a * b > _MAX_NUMBER:
                raise SecurityError(f"{operator} with a result that is too large")
        return super().call_binop(context, operator, left, right)

    @pass_context  # with a context there is nothing to do while compiling
    def _shown(self, context: Any, value: Any) -> Any:
        self.pay_for(value)
        return value

    def _step(self, units: int) -> None:
        self.pay(units)

    def _counted(self, items: Any) -> Any:
        self.pay(len(items) if isinstance(items, Sized) else 1)
        return items

    def _hashed(self, key: Any) -> Any:
        if isinstance(key, tuple):
            self.pay_for(key)
        return key

    def _concatenated(self, parts: Sequence[Any]) -> str:
        self.pay_for(*parts)
        return "".join(map(str, parts))

    def _compared(self, left: Any, how: str, right: Any) -> Any:
        if how in ("in", "notin"):
            self.pay_for(left, None if isinstance(right, Mapping) else right)
        elif isinstance(left, str) and isinstance(right, str):
            self.pay(min(len(left), len(right)))
        elif isinstance(left, Collection) and isinstance(right, Collection):
            self.pay_for(left, right)
        return _COMPARE[how](left, right)

    def _format(self, text: Any, *args: Any, **named: Any) -> Any:
        return self.call_binop(None, "%", str(text), named or args)

    def _paid_filter(self, name: str, apply: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(apply)  # also what Jinja marks it with: whether it wants the context first
        def paid(*args: Any, **kwargs: Any) -> Any:
            values = [value for value in (*args, *kwargs.values()) if not _is_jinja(value)]
            if name in _SHALLOW:
                self.pay(sum(len(value) if isinstance(value, Sized) else 1 for value in values))
            else:
                units = self.pay_for(*values)
                self.pay(units * _largest(values[1:]) if name in _GROWING else 0)
            result = apply(*args, **kwargs)
            return list(result) if isinstance(result, Iterator) else result

        return paid

    def _paid_test(self, apply: Any) -> Callable[..., Any]:
        @wraps(apply)
        def paid(*args: Any) -> Any:
            self.pay_for(*(value for value in args if not _is_jinja(value)))
            return apply(*args)

        return paid


def weight(value: Any, most: int) -> int:
    """Characters, items and bytes of numbers in a value and in what it holds, in units; ends soon after `most`."""
    total, pending = 0, [value]
    while pending and total <= most:
        item = pending.pop()
        total += _ITEM
        if isinstance(item, str | range):
            total += len(item)
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


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON; Jinja's own `tojson` escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise RequestError(f"the model's chat template refuses these messages: {message}")


def _strftime_now(form: str) -> str:
    if re.search(r"%[^a-zA-Z%]*\d", form):  # some systems pad a field to as many characters as it says
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

    def _body(self, node: Any) -> nodes.Node:
        """All of the body is paid for when it begins, nested bodies once, too."""
        cost = _BODY + sum(len(n.data) if isinstance(n, nodes.TemplateData) else 1 for n in node.find_all(nodes.Node))
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_filter(nodes.Const(cost), "step", lineno=node.lineno), lineno=node.lineno))
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = visit_Block = _body

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "concatenated")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        result: nodes.Expr | None = None
        left = node.expr
        for operand in node.ops:
            one = _filter(left, "compared", nodes.Const(operand.op), operand.expr)
            result = one if result is None else nodes.And(result, one, lineno=node.lineno)
            left = operand.expr
        return result or node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        node.key = _filter(node.key, "hashed")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, "counted") if isinstance(node.arg, nodes.Slice) else node


def _filter(value: Any, name: str, *args: nodes.Expr, lineno: int | None = None) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=lineno or value.lineno)
