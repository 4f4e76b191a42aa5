"""Jinja for templates that strangers wrote: they can read the example they are given, and end in bounded time.

What is there is a list, and all else is refused: the attributes of METHODS and nothing of any other object, the filters
of filters.py, four functions, no way to another file. Whatever repeats or grows is charged to a WorkLimit. What remains
are single operations of Python on huge nested values, e.g. comparing two of them; rendering.py has a limit of seconds
and of memory for those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MethodType
from typing import Any, NoReturn

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError, pass_context
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError, safe_range
from jinja2.utils import Namespace, missing

from megatron.basics.draws import Draws
from megatron.prompting.filters import filters_for, formatted, joined, replaced
from megatron.prompting.guard import TURNS, Guard
from megatron.prompting.separators import mark_separators
from megatron.prompting.work_limit import PART, STEP, WorkLimit

LONGEST_SOURCE = 100_000  # characters; promptsource's longest has some 3,000
LARGEST_INTEGER = 2**4096
LARGEST_EXPONENT = 64

_OF_TEXTS = (
    "capitalize count endswith find index isalpha isdigit islower isupper lower lstrip partition removeprefix "
    "removesuffix rfind rpartition rsplit rstrip split splitlines startswith strip title upper"
)
# What a template may call on a value of each type; texts have join and replace besides. Of what changes a value, only
# that which promptsource's own use.
METHODS: dict[type, dict[str, Callable[..., Any]]] = {
    str: {name: getattr(str, name) for name in _OF_TEXTS.split()},
    list: {"append": list.append, "count": list.count, "index": list.index, "pop": list.pop},
    tuple: {"count": tuple.count, "index": tuple.index},
    dict: {name: getattr(dict, name) for name in ("get", "items", "keys", "pop", "update", "values")},
}
QUICK_METHODS = {list.append, list.pop, dict.get, dict.items, dict.keys, dict.pop, dict.update, dict.values}
Source = Callable[[Mapping[str, Any]], str]  # one text of a template, ready to render
FUNCTIONS: dict[str, Callable[..., Any]] = {"dict": dict, "namespace": Namespace, "range": safe_range, "zip": zip}


class MissingColumn(UndefinedError):
    """A template names a column that the example does not have; `message` is the column's name."""


class _Missing(StrictUndefined):
    """What is not there: an error, but for what a single example may lack: an element of a shorter list, or of none."""

    def __new__(
        cls, hint: str | None = None, obj: Any = missing, name: Any = None, exc: type[Exception] = UndefinedError
    ) -> Any:
        if hint is not None and exc is UndefinedError:
            return Undefined(hint)
        if obj is None or (isinstance(obj, list | tuple | str) and isinstance(name, int)):
            return Undefined(None, obj, name)
        return super().__new__(cls)

    def __init__(
        self, hint: str | None = None, obj: Any = missing, name: Any = None, exc: type[Exception] = UndefinedError
    ) -> None:
        if hint is None and obj is missing:
            hint, exc = name, MissingColumn
        super().__init__(hint, obj, name, exc)  # type: ignore[arg-type]


class SourceFault(Exception):
    """A text that can never be rendered; says where, from line 1, and why, without a full stop."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Renders the texts of one template; not for several threads at once, since it holds what is left of the work.

    Nothing is computed while a template is compiled: what is constant would be drawn once for all examples, and its
    work not be counted. So the optimizer is off, and what is written needs the context.
    """

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        self.work = WorkLimit()
        self._seed: Callable[[], int] = int
        self._draws: Draws | None = None
        super().__init__(undefined=_Missing, finalize=self._written, optimized=False, cache_size=0)
        self.globals = dict(FUNCTIONS)
        self.filters = filters_for(self.work, self._draws_of_example)
        self.filters[TURNS] = self._turns
        self._source_length = 0
        self._methods = {kind: dict(methods) for kind, methods in METHODS.items()}
        self._methods[str]["join"] = lambda between, values: joined(self.work, between, values)
        self._methods[str]["replace"] = lambda text, *others: replaced(self.work, text, *others)

    def begin(self, seed: Callable[[], int]) -> None:
        """Give a new example all of the work and its own draws; `seed` is asked where the template draws."""
        self.work.begin()
        self._seed, self._draws = seed, None

    def source(self, text: str) -> Source:
        """A template's text compiled, with its separators marked; raises SourceFault where that cannot be."""
        try:
            if len(text) > LONGEST_SOURCE:
                raise TemplateSyntaxError(f"it has more than {LONGEST_SOURCE:,} characters", 1)
            tree = self.parse(text)
            mark_separators(tree)
            tree = Guard().visit(tree)
            template = self.template_class.from_code(self, self.compile(tree), self.globals)
        except TemplateSyntaxError as error:
            raise SourceFault(f"line {error.lineno}: {(error.message or 'it does not parse').rstrip('.')}") from error
        except Exception as error:  # Python's own limits: of nesting, of digits
            raise SourceFault(
                f"line 1: it is too deep or too long to compile ({type(error).__name__}: {error})"
            ) from error
        self._source_length = max(self._source_length, len(text))

        def render(values: Mapping[str, Any]) -> str:
            return "".join(template.root_render_func(template.new_context(dict(values))))

        return render

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: a method of the list, a dict's value, or what loops and namespaces hold."""
        kind = type(obj)
        methods = self._methods.get(kind)
        if methods is None:
            if obj is None:
                return self.undefined(obj=obj, name=attribute)
            if isinstance(obj, Undefined):
                obj._fail_with_undefined_error()
            if kind in (LoopContext, Namespace) and not attribute.startswith("_"):
                return super().getattr(obj, attribute)
            _refuse_attribute(obj, attribute)
        if attribute in methods:
            return partial(methods[attribute], obj)
        if kind is not dict:
            _refuse_attribute(obj, attribute)
        return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`, which is never an attribute but for a namespace's."""
        try:
            return obj[argument]
        except (TypeError, LookupError):
            if isinstance(argument, str) and type(obj) is not dict:
                return self.getattr(obj, argument)
            return self.undefined(obj=obj, name=argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the list, a function, a macro or what belongs to a loop."""
        kind = type(__obj)
        if kind is Macro:
            __self.work.charge(STEP + __self._source_length)
            return __context.call(__obj, *args, **kwargs)
        if not _may_be_called(__obj, kind):
            raise SecurityError(f"{kind.__name__} objects may not be called in a template")
        __self.work.charge(STEP)
        for argument in args:
            __self.work.charge_value(argument)
        if kind is partial and __obj.func not in QUICK_METHODS:
            __self.work.charge(len(__obj.args[0]))  # the value whose method it is
        result = __context.call(__obj, *args, **kwargs)
        if isinstance(result, list | dict):
            __self.work.charge(PART * len(result))
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operations whose result can be larger than both sides together."""
        if operator == "%" and isinstance(left, str):
            return formatted(self.work, left, right)
        if operator == "**" and (abs(right) > LARGEST_EXPONENT or abs(left) > LARGEST_INTEGER):
            raise SecurityError(f"powers go up to {LARGEST_EXPONENT}")
        if operator == "*":
            self._charge_product(left, right)
        elif operator == "+" and isinstance(left, str | bytes | list | tuple):
            self.work.charge(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def _charge_product(self, left: Any, right: Any) -> None:
        for sequence, count in ((left, right), (right, left)):
            if isinstance(sequence, str | bytes | list | tuple):
                self.work.charge(len(sequence) * max(0, count))
        if isinstance(left, int) and isinstance(right, int) and max(abs(left), abs(right)) > LARGEST_INTEGER:
            raise SecurityError("a number is too large")

    def _turns(self, values: Any, each: int) -> Any:
        """What a loop goes through, `each` characters of work a turn; lists stay lists, whose length loops can tell."""
        each = max(each, STEP)  # `map` takes any filter's name
        if isinstance(values, list | tuple | range | str | dict):
            self.work.charge(each * len(values))
            return values
        return self.work.counted(values, each)

    def _draws_of_example(self) -> Draws:
        if self._draws is None:
            self._draws = Draws(self._seed())
        return self._draws

    @pass_context
    def _written(self, _: Context, value: Any) -> str:
        text = self.work.text(value)
        self.work.charge(len(text))
        return text


def _refuse_attribute(obj: Any, attribute: str) -> NoReturn:
    raise SecurityError(f"{attribute!r} of a {type(obj).__name__} is not for templates")


def fault_of_source(text: str) -> str | None:
    """Why a text can never be rendered, with its line; None where it can."""
    try:
        _sandbox_for_checks().source(text)
    except SourceFault as fault:
        return str(fault)
    return None


@cache
def _sandbox_for_checks() -> Sandbox:
    return Sandbox()


def _may_be_called(obj: Any, kind: type) -> bool:
    """Whether it is one of METHODS, one of FUNCTIONS or of a loop; what is not there says so when it is called."""
    if kind is partial or isinstance(obj, Undefined) or any(obj is function for function in FUNCTIONS.values()):
        return True
    return kind is MethodType and type(obj.__self__) is LoopContext
