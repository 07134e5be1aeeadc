"""What annotations are made of, without the module typing: it takes a tenth of our import.

Checkers of types see the names of typing. Everybody else sees that they are there, which is all
that annotations need.
"""

from __future__ import annotations

TYPE_CHECKING = False  # checkers of types take what is called so to be true

if TYPE_CHECKING:
    from typing import Any as Any
    from typing import BinaryIO as BinaryIO
    from typing import ClassVar as ClassVar
    from typing import NoReturn as NoReturn
    from typing import Protocol as Protocol
    from typing import TextIO as TextIO
    from typing import TypeGuard as TypeGuard
    from typing import TypeVar as TypeVar
    from typing import cast as cast
    from typing import overload as overload
else:

    class Any:
        """Stands for typing.Any."""

    class Protocol:
        """Stands for typing.Protocol."""

    BinaryIO = ClassVar = NoReturn = TextIO = TypeGuard = Any

    def TypeVar(name, *bounds):
        """Stands for typing.TypeVar."""
        return Any

    def cast(kind, value):
        """As typing.cast."""
        return value

    def overload(function):
        """Stands for typing.overload."""
        return function
